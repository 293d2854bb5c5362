"""Reproducible imports: the same tar under the same layer name gives the same bytes, whoever imports it, where and how.

The digests of the sample layers stand in tests/golden/samples.sha256, so that no change of what is written goes
unnoticed. After an intended one: CIMLAYER_UPDATE_GOLDEN=1 pytest tests/test_reproducible.py, and a line in the
changelog.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cimlayer import import_layer
from support import ROOT

GOLDEN = ROOT / "tests" / "golden" / "samples.sha256"
BASE_TAR, CHILD_TAR = ROOT / "examples" / "sample-layer.tar", ROOT / "examples" / "sample-child.tar"

IMPORT_BOTH = """
import os, sys
from cimlayer import import_layer
base_tar, child_tar, root, umask, jobs = sys.argv[1:]
os.umask(int(umask, 8))
import_layer(base_tar, f"{root}/base", sync=False, jobs=int(jobs))
import_layer(child_tar, f"{root}/child", [f"{root}/base"], sync=False, jobs=int(jobs))
"""


def digests(root: Path) -> dict[str, str]:
    """The SHA-256 of every file below a directory, by its path there."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while piece := file.read(1 << 20):
                    digest.update(piece)
            found[path.relative_to(root).as_posix()] = digest.hexdigest()
    return dict(sorted(found.items()))


def import_both(root: Path, *, jobs: int | None = None, reproducible: bool = True) -> dict[str, str]:
    import_layer(BASE_TAR, root / "base", sync=False, reproducible=reproducible, jobs=jobs)
    import_layer(CHILD_TAR, root / "child", [root / "base"], sync=False, reproducible=reproducible, jobs=jobs)
    return digests(root)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return import_both(tmp_path_factory.mktemp("expected"))


@pytest.fixture(autouse=True)
def no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


def test_the_sample_layers_have_the_bytes_that_they_always_had(expected: dict[str, str]) -> None:
    text = "".join(f"{digest}  {name}\n" for name, digest in expected.items())
    if "CIMLAYER_UPDATE_GOLDEN" in os.environ:
        GOLDEN.write_text(text, "ascii")
    assert text.splitlines() == GOLDEN.read_text("ascii").splitlines()


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_runs_directories_and_threads_do_not_matter(tmp_path: Path, expected: dict[str, str], jobs: int) -> None:
    assert import_both(tmp_path / "some" / "other directory" / "ü", jobs=jobs) == expected


def test_compression_does_not_matter(tmp_path: Path, expected: dict[str, str]) -> None:
    compressed = tmp_path / "base.tar.gz"
    compressed.write_bytes(gzip.compress(BASE_TAR.read_bytes()))
    root = tmp_path / "root"
    import_layer(compressed, root / "base", sync=False, reproducible=True)
    own = {name: digest for name, digest in expected.items() if name.startswith("base/")}
    assert {name: digest for name, digest in digests(root).items() if name.startswith("base/")} == own
    assert digests(root)["cim-layers/base.cim"] == expected["cim-layers/base.cim"]


@pytest.mark.parametrize(
    ("locale", "zone", "umask", "hash_seed", "jobs"),
    [("C", "UTC", "022", "0", 1), ("de_DE.UTF-8", "Asia/Kathmandu", "077", "1", 2), ("tr_TR", "", "000", "2", 4)],
)
def test_processes_and_their_environment_do_not_matter(
    tmp_path: Path, expected: dict[str, str], locale: str, zone: str, umask: str, hash_seed: str, jobs: int
) -> None:
    environment = {"LC_ALL": locale, "LANG": locale, "TZ": zone, "PYTHONHASHSEED": hash_seed, "SOURCE_DATE_EPOCH": "0"}
    words = [sys.executable, "-c", IMPORT_BOTH, BASE_TAR, CHILD_TAR, tmp_path / "root", umask, str(jobs)]
    subprocess.run(list(map(str, words)), env=os.environ | environment, cwd=tmp_path, check=True)
    assert digests(tmp_path / "root") == expected


def test_source_date_epoch_is_the_time_of_what_is_made_here(
    tmp_path: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = import_both(tmp_path / "first", reproducible=False)
    assert first == import_both(tmp_path / "second", reproducible=True)
    assert first != expected


@pytest.mark.parametrize("seconds", ["", "now", "-1", "1.5", "999999999999", "9" * 5000])
def test_source_date_epoch_that_is_no_time_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)
    with pytest.raises(ValueError, match="SOURCE_DATE_EPOCH is not a number of seconds"):
        import_layer(BASE_TAR, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_without_being_asked_for_images_are_not_alike(tmp_path: Path, expected: dict[str, str]) -> None:
    made = import_both(tmp_path, reproducible=False)
    assert set(made) & {name for name in expected if "region_" in name} == set()


def test_another_layer_name_gives_another_region_set(tmp_path: Path, expected: dict[str, str]) -> None:
    import_layer(BASE_TAR, tmp_path / "other", sync=False, reproducible=True)
    regions = {path.name for path in (tmp_path / "cim-layers").glob("region_*")}
    assert regions and not regions & {Path(name).name for name in expected}
