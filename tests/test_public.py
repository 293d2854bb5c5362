"""The public root: one list of names, loaded when asked for, that type checkers and docs/api.md agree with."""

from __future__ import annotations

import importlib.util
import pickle
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import cimlayer
from support import ROOT, rootstub

API = (ROOT / "docs" / "api.md").read_text("utf-8")
COMPILED = sorted(path.stem for path in (ROOT / "cimfs_ext").glob("*.pyx"))

PROGRAM = """
import cimlayer
from cimlayer import CimLayerWriter, FileBasicInfo, Hive, LimitError, import_layer, interpret
from cimlayer.errors import FormatError

def main(path: str) -> int:
    try:
        with cimlayer.ImageReader(path) as image:
            entries: list[cimlayer.ImageEntry] = image.listdir("Files")
        return import_layer(path, "layers/1").bytes + len(entries)
    except LimitError as error:
        limit: str | None = error.limit
        offset: int | None = error.offset
        print(limit, offset, cimlayer.__version__)
    except FormatError as error:
        print(error.path)
    return 0

def of_hive(hive: Hive, layer: CimLayerWriter) -> None:
    layer.add("f", FileBasicInfo(file_attributes=0x20), 0)
    value: cimlayer.HiveValue = hive.value("Select", "Current")
    number: int | str | list[str] | None = interpret(value)
    print(number)
"""
WRONG = """
import cimlayer
size: str = cimlayer.import_layer("a.tar", "layers/1")
cimlayer.no_such_name
"""


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", check=False)


def test_importing_the_package_loads_nothing_else() -> None:
    program = "import sys, cimlayer; print([n for n in sys.modules if n.startswith(('cimlayer.', 'cimfs_ext'))])"
    assert run(sys.executable, "-c", program).stdout == "[]\n"


def test_the_stub_is_made_of_the_table() -> None:
    assert rootstub.PATH.read_text("utf-8") == rootstub.text(), "cd tests && python -m support.rootstub"


def test_every_name_is_there_once() -> None:
    names = [name for module in cimlayer._MODULES.values() for name in module]  # type: ignore[attr-defined]
    assert len(names) == len(set(cimlayer.__all__)) == len(cimlayer.__all__)
    assert {*cimlayer.__all__, "__version__"} <= set(dir(cimlayer))
    for name in cimlayer.__all__:
        assert getattr(cimlayer, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        cimlayer.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def documented() -> set[str]:
    """The names that the tables of the page begin their rows with, and those of its list of exceptions."""
    rows = re.findall(r"^\| (`.*?) \|", API, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)", row)}


def test_the_api_page_has_every_public_name_and_no_other() -> None:
    assert documented() == set(cimlayer.__all__)


@pytest.mark.parametrize("name", [name for name in cimlayer.__all__ if isinstance(getattr(cimlayer, name), type)])
def test_no_class_shows_the_private_package(name: str) -> None:
    shown = getattr(cimlayer, name)
    assert "cimfs_ext" not in f"{shown!r} {shown.__module__}"
    if shown.__module__ == "cimlayer":
        assert shown.__qualname__ == name
    assert pickle.loads(pickle.dumps(shown)) is shown


def test_a_value_of_a_hive_survives_a_pickle() -> None:
    value = cimlayer.HiveValue("name", 1, b"data", False)
    assert pickle.loads(pickle.dumps(value)) == value


def test_the_version_is_that_of_the_distribution() -> None:
    assert cimlayer.__version__ == version("cimlayer")


def test_the_package_is_the_command() -> None:
    ended = run(sys.executable, "-m", "cimlayer", "--version")
    assert (ended.stdout, ended.returncode) == (f"cimlayer {cimlayer.__version__}\n", 0)


# ---- type checkers, on a program of a user ----


def checker(name: str) -> str:
    """The program's path: beside the interpreter, or wherever else it is."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize(
    ("name", "options"), [("mypy", ("--strict", "--python-executable")), ("pyright", ("--pythonpath",))]
)
def test_a_type_checker_finds_the_types(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(PROGRAM, "utf-8")
    (tmp_path / "wrong.py").write_text(WRONG, "utf-8")
    command = (checker(name), *options, sys.executable)
    right = run(*command, "right.py", cwd=tmp_path)
    assert right.returncode == 0, right.stdout + right.stderr
    wrong = run(*command, "wrong.py", cwd=tmp_path)
    assert wrong.returncode == 1
    assert len(re.findall(r"error", wrong.stdout)) >= 2, wrong.stdout


def test_the_stubs_are_those_of_the_modules() -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    modules = [f"cimfs_ext.{name}" for name in COMPILED if name != "winfiles" or sys.platform == "win32"]
    options = ("--mypy-config-file", "pyproject.toml", "--allowlist", "stubtest.txt", "--ignore-disjoint-bases")
    ended = run(sys.executable, "-m", "mypy.stubtest", *options, *modules, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
