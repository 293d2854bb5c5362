"""The rooms of the package: docs/architecture.md lists them from top to bottom, and imports point down only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT
from support.platforms import same_everywhere

pytestmark = same_everywhere

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PACKAGE, STUBS, NATIVE = ROOT / "python" / "cimlayer", ROOT / "python" / "cimfs_ext", ROOT / "cimfs_ext"

_ORDER = ARCHITECTURE.partition("## The rooms")[0]
ROOMS = [re.findall("`([^`]+)`", cell) for cell in re.findall(r"^\| (`[a-z_`_ ]+`) \|", _ORDER, re.MULTILINE)]
FLOORS = {room: -row for row, rooms in enumerate(ROOMS) for room in rooms}

CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+)?c?import\s+(\(?[\w., ]+)", re.MULTILINE)
INCLUDE = re.compile(r'^\s*(?:#\s*include|cdef extern from)\s+"([^"]+)"', re.MULTILINE)


def room_of_module(name: str) -> str | None:
    """The room of a dotted name; None for other packages."""
    package, _, inner = name.partition(".")
    if package == "cimfs_ext":
        return package
    if package != "cimlayer":
        return None
    first = inner.partition(".")[0]
    return first if (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file() else "__init__"


def python_imports(text: str, package: str) -> Iterator[str]:
    """The modules that a Python file imports anywhere, in functions and for type checkers too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"a relative import in {package}"
            # A name that is imported from the root may be a room.
            yield from (
                [f"{node.module}.{name.name}" for name in node.names] if node.module == package else [node.module]
            )


def cython_imports(text: str) -> Iterator[str]:
    for module, names in CIMPORT.findall(text):
        yield from [module] if module else names.split(",")


def room_of_native(path: Path) -> str:
    """The room of a C or Cython source, or of the path of a header as it is included."""
    return path.parts[0] if len(path.parts) > 1 else "cimfs_ext"


def arrows() -> Iterator[tuple[str, str, str]]:
    """Each file with the room that it is in and the room of something that it imports or includes."""
    for path in sorted(PACKAGE.rglob("*.py*")):
        if path.suffix in (".py", ".pyi"):
            room = path.relative_to(PACKAGE).parts[0].partition(".")[0]
            for module in python_imports(path.read_text("utf-8"), "cimlayer"):
                yield str(path.relative_to(ROOT)), room, room_of_module(module.strip()) or room
    for path in sorted([*STUBS.glob("*.py"), *STUBS.glob("*.pyi"), *STUBS.glob("*.pxd"), *NATIVE.rglob("*.pyx")]):
        text = path.read_text("utf-8")
        modules = cython_imports(text) if path.suffix in (".pxd", ".pyx") else python_imports(text, "cimlayer")
        for module in modules:
            yield str(path.relative_to(ROOT)), "cimfs_ext", room_of_module(module.strip()) or "cimfs_ext"
    for path in sorted(NATIVE.glob("*/*.[ch]")):
        room = room_of_native(path.relative_to(NATIVE))
        for header in INCLUDE.findall(path.read_text("utf-8")):
            if (NATIVE / header).is_file() and header.count("/"):
                yield str(path.relative_to(ROOT)), room, room_of_native(Path(header))


ARROWS = list(arrows())


def test_every_arrow_points_down() -> None:
    assert len(ARROWS) > 100
    up = [(file, target) for file, room, target in ARROWS if FLOORS[target] > FLOORS[room]]
    assert up == []


def test_the_table_would_notice_an_arrow_that_points_up() -> None:
    assert list(python_imports("def f():\n    from cimlayer.cli import ls", "cimlayer")) == ["cimlayer.cli"]
    assert list(python_imports("from cimlayer import oci, CimPath", "cimlayer")) == ["cimlayer.oci", "cimlayer.CimPath"]
    assert [room_of_module(name) for name in ("cimlayer.cli.ls", "cimlayer.CimPath", "os")] == ["cli", "__init__", None]
    assert list(cython_imports("from cimfs_ext.image cimport wide\nimport os")) == ["cimfs_ext.image", "os"]
    assert FLOORS["cli"] > FLOORS["oci"] > FLOORS["errors"] > FLOORS["libcimfs"]


def test_every_room_has_its_row_in_the_table() -> None:
    rooms = {path.name if path.is_dir() else path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    rooms |= {path.name for path in NATIVE.iterdir() if path.is_dir()} | {"cimfs_ext"}
    assert {room for room in rooms if room != "__pycache__"} - FLOORS.keys() == set()


@pytest.mark.parametrize("room", [rooms[0] for rooms in ROOMS if not rooms[0].startswith("__")])
def test_every_room_has_its_paragraph(room: str) -> None:
    title = "Single files" if (PACKAGE / f"{room}.py").is_file() else room
    assert re.search(rf"^### {title}\n\n\w", ARCHITECTURE, re.MULTILINE)


def test_every_directory_is_on_the_tour() -> None:
    made = {"build", "dist", "work", "__pycache__"}
    above = {ROOT: "", ROOT / "tests": "tests/", PACKAGE / "formats": "formats/"}
    found = {(where, path.name) for where in above for path in where.iterdir() if path.is_dir()}
    kept = {(where, name) for where, name in found if name not in made and not name.startswith(".")}
    mirrors = {(ROOT / "tests", path.name) for path in PACKAGE.iterdir()} | {(ROOT, "python")}
    named = set(re.findall(r"`([\w./]+?)/?`", ARCHITECTURE))
    assert {above[where] + name for where, name in kept - mirrors} - named == set()


def test_the_tour_names_files_that_exist() -> None:
    """Rows and headings say which folder a bare name belongs to, so any room will do."""
    roots = [
        ROOT,
        ROOT / "docs",
        PACKAGE,
        STUBS,
        NATIVE,
        *PACKAGE.glob("*/"),
        *NATIVE.glob("*/"),
        *PACKAGE.glob("*/*/"),
    ]
    names = set(re.findall(r"`([\w./]+\.(?:py|pyx|c|h|md))`", ARCHITECTURE))
    assert len(names) > 20
    assert {name for name in names if not any((root / name).is_file() for root in roots)} == set()
