"""Too few file descriptors: each failure says of what, and leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

TARS = ROOT / "examples"

# The modules are loaded first: a module that cannot be opened is not what this is about.
IMPORTS = """
import resource, sys
from pathlib import Path
import cimlayer, cimlayer.cli.create, cimlayer.cli.import_, cimlayer.image.create, cimlayer.oci.import_layer
import cimlayer.formats.bcd, cimlayer.formats.disks
tars, root = Path(sys.argv[1]), Path(sys.argv[2])
operations = {
    "import": lambda: cimlayer.import_layer(tars / "sample-layer.tar", root / "base", sync=False),
    "create": lambda: cimlayer.create_image(root / "images" / "a.cim", tars, sync=False),
}
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[4]), int(sys.argv[4])))
try:
    operations[sys.argv[3]]()
except OSError as error:
    print(error.errno, error.filename)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("operation", ["import", "create"])
def test_running_out_of_descriptors_names_a_path_and_leaves_nothing(tmp_path: Path, operation: str) -> None:
    failures = 0
    for limit in range(5, 40):
        root = tmp_path / str(limit)
        root.mkdir()
        words = [sys.executable, "-c", IMPORTS, TARS, root, operation, str(limit)]
        done = subprocess.run(list(map(str, words)), capture_output=True, encoding="utf-8", check=False, timeout=60)
        assert done.stderr == ""
        if not done.stdout:
            break
        number, _, name = done.stdout.strip().partition(" ")
        assert number == "24", done.stdout
        assert not name.isdigit(), limit
        assert name != "None", limit
        assert os.listdir(root) == [], limit
        failures += 1
    else:
        pytest.fail("never enough descriptors")
    assert failures >= 5
