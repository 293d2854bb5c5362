"""The commands with container registries: how their options are spelled, and what an error looks like."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT
from support.commands import call, run, succeed
from support.containers import Store, base_tar, gzipped
from support.registries import PASSWORD, FakeRegistry, login, running


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with running() as server:
        server.auth = "basic"
        yield server


@pytest.fixture
def image(registry: FakeRegistry) -> str:
    return registry.tag("win/app:v1", registry.store.image([gzipped(base_tar())]))


def test_an_image_is_listed_and_imported(registry: FakeRegistry, image: str, tmp_path: Path) -> None:
    options = ["--tls-verify=false", "--authfile", login(tmp_path, registry.host)]
    (listed,) = succeed("images", image, "--json", *options).splitlines()
    assert json.loads(listed)["digest"] == registry.tags["win/app:v1"]
    top = succeed("import-image", image, tmp_path / "layers", "--quiet", "--no-sync", *options).strip()
    assert Path(top).parent == tmp_path / "layers"


def test_an_error_is_one_line_that_names_the_repository(image: str, tmp_path: Path) -> None:
    (tmp_path / "nobody.json").write_text("{}", encoding="utf-8")
    result = call(
        "import-image", image, tmp_path / "layers", "--tls-verify=false", "--authfile", tmp_path / "nobody.json"
    )
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"cimlayer: {image}: manifest v1: 401 Unauthorized (UNAUTHORIZED); there are no credentials")
    assert PASSWORD not in line


@pytest.mark.parametrize("command", ["images", "import-image"])
def test_a_password_in_a_reference_is_refused_and_not_repeated(command: str, tmp_path: Path) -> None:
    arguments = [tmp_path / "layers"] if command == "import-image" else []
    result = call(command, "docker://user:secret@127.0.0.1:1/app", *arguments)
    assert result.exit_code == 1
    assert "secret" not in result.stderr


def test_without_urllib3_the_rest_works_and_the_error_says_what_to_install(tmp_path: Path) -> None:
    program = "import sys; sys.modules['urllib3'] = None; from cimlayer.cli import main; main()"
    Store().layout(tmp_path, [])

    def without(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, encoding="utf-8", check=False
        )

    done = without("images", "docker://127.0.0.1:1/app")
    assert done.returncode == 1
    assert done.stderr == "cimlayer: container registries need urllib3: pip install 'cimlayer[registry]'\n"
    assert without("import", ROOT / "examples" / "sample-layer.tar", tmp_path / "layer").returncode == 0


def test_the_program_needs_no_http_for_files(tmp_path: Path) -> None:
    program = "import sys; from cimlayer.cli import import_image, list_images; print('urllib3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.strip() == b"False"
    assert run("import-image", "--help").returncode == 0
