"""CimPath: the half of pathlib that reads, over an image."""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimfs_ext.reader import ImageReader
from cimlayer import CimPath, CorruptImageError, FileAttributes, PathNotFoundError, diff_images, extract
from support.cimbytes import Builder
from support.images import DIRECTORY, add, make_image, writer
from support.layers import reparse_of
from support.platforms import examples
from support.readers import small_tree

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable
else:
    from importlib.abc import Traversable

FILES = {
    "Files": None,
    "Files\\Windows": None,
    "Files\\Windows\\System32": None,
    "Files\\Windows\\System32\\Kernel32.DLL": b"MZ",
    "Files\\Windows\\System32\\ntdll.dll": b"MZ",
    "Files\\Windows\\win.ini": b"one\r\ntwo \xc3\xa4\r\n",
    "Files\\archive.tar.gz": b"",
    "Files\\Ärger.txt": b"",
    "Hives": None,
    "Hives\\Software_Base": b"regf",
}


def mount_point(target: str) -> bytes:
    """[MS-FSCC] 2.1.2.5; the substitute name alone."""
    name = f"\\??\\{target}".encode("utf-16-le")
    data = struct.pack("<4H", 0, len(name), len(name) + 2, 0) + name + bytes(4)
    return struct.pack("<IHH", 0xA0000003, len(data), 0) + data


@pytest.fixture
def image(tmp_path: Path) -> Iterator[ImageReader]:
    make_image(tmp_path, "base.cim", FILES)
    with writer(tmp_path, "base.cim", "child.cim") as image:
        add(image, "Files\\link", attributes=0, reparse_data=reparse_of("C:\\Windows\\win.ini"))
        add(image, "Files\\junction", attributes=DIRECTORY, reparse_data=mount_point("C:\\Windows"))
        image.create_alternate_stream("Files\\Windows\\win.ini:zone", 4)
        image.write(b"zone")
        image.commit()
    with ImageReader(tmp_path / "child.cim") as reader:
        yield reader


@pytest.fixture
def root(image: ImageReader) -> CimPath:
    return CimPath(image)


def names(paths: Iterator[CimPath]) -> list[str]:
    return [path.as_posix() for path in paths]


def test_the_path_alone(root: CimPath) -> None:
    path = root / "Files/Windows" / PureWindowsPath("System32\\ntdll.dll")
    assert str(path) == "Files\\Windows\\System32\\ntdll.dll"
    assert path.as_posix() == "Files/Windows/System32/ntdll.dll"
    assert path.parts == ("Files", "Windows", "System32", "ntdll.dll")
    assert (path.name, path.stem, path.suffix) == ("ntdll.dll", "ntdll", ".dll")
    assert (root / "archive.tar.gz").suffixes == [".tar", ".gz"]
    assert str(path.parent) == "Files\\Windows\\System32"
    assert [str(one) for one in path.parents] == ["Files\\Windows\\System32", "Files\\Windows", "Files", ""]
    assert (str(root), root.name, root.parts, root.parent) == ("", "", (), root)
    assert repr(root / "Files") == "CimPath('child.cim', 'Files')"
    assert root.joinpath("/Files//./Windows/", "x") == root / "files\\WINDOWS\\X"
    assert CimPath(root.image, "Files") == root / "Files"


def test_equal_paths_are_those_of_one_file(root: CimPath, tmp_path: Path) -> None:
    assert root / "FILES/ÄRGER.TXT" == root / "files\\ärger.txt"
    assert len({root / "FILES", root / "files", root / "Hives"}) == 2
    assert sorted([root / "b", root / "C", root / "a"]) == [root / "a", root / "b", root / "C"]
    assert root != CimPath(tmp_path / "child.cim")
    assert root != "Files"
    with pytest.raises(TypeError):
        root < "Files"  # type: ignore[operator]  # noqa: B015


def test_relative_paths(root: CimPath) -> None:
    path = root / "Files\\Windows\\win.ini"
    for above in (root / "FILES", "files", PurePosixPath("Files")):
        assert path.is_relative_to(above)
        assert path.relative_to(above) == PureWindowsPath("Windows\\win.ini")
    assert path.relative_to(root) == PureWindowsPath("Files\\Windows\\win.ini")
    assert not path.is_relative_to("Hives")
    with pytest.raises(ValueError, match="not below"):
        path.relative_to("Hives")


def test_what_is_there(root: CimPath) -> None:
    path = root / "files/windows/WIN.INI"
    assert path.exists()
    assert (path.is_file(), path.is_dir(), path.is_symlink()) == (True, False, False)
    assert (root.is_file(), root.is_dir()) == (False, True)
    assert path.stat().size == len(FILES["Files\\Windows\\win.ini"] or b"")
    missing = root / "Files" / "x"
    assert not any((missing.exists(), missing.is_file(), missing.is_dir(), missing.is_symlink(), missing.is_junction()))
    for call in (missing.stat, missing.read_bytes, missing.iterdir, missing.open, missing.readlink):
        with pytest.raises(PathNotFoundError):
            call()
    assert not (root / "Files\\..\\Files").exists()


def test_links_are_neither_files_nor_directories(root: CimPath) -> None:
    link, junction = root / "Files/link", root / "Files/junction"
    assert (link.is_symlink(), link.is_junction(), link.is_file(), link.is_dir()) == (True, False, False, False)
    assert (junction.is_symlink(), junction.is_junction(), junction.is_dir()) == (False, True, False)
    assert link.readlink() == PureWindowsPath("C:\\Windows\\win.ini")
    assert junction.readlink() == PureWindowsPath("C:\\Windows")
    with pytest.raises(OSError, match="not a link"):
        (root / "Files").readlink()


def test_content(root: CimPath) -> None:
    path = root / "Files/Windows/win.ini"
    assert path.read_bytes() == b"one\r\ntwo \xc3\xa4\r\n"
    assert path.read_text("utf-8") == "one\ntwo ä\n"
    assert path.read_text("latin-1").startswith("one\ntwo Ã")
    with path.open(newline="") as text:
        assert text.readline() == "one\r\n"
    with path.open("rb") as content:
        assert isinstance(content, io.BufferedReader)
        assert content.readline() == b"one\r\n"
    with path.open("rb", stream="zone") as content:
        assert content.read() == b"zone"
    for mode in ("w", "a", "r+", "rb+", "x"):
        with pytest.raises(ValueError, match="mode"):
            path.open(mode)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="for text"):
        path.open("rb", encoding="utf-8")  # type: ignore[call-overload]
    with pytest.raises(IsADirectoryError):
        root.read_bytes()


def test_tree(root: CimPath) -> None:
    assert [path.name for path in root.iterdir()] == ["Files", "Hives"]
    assert all(path.stat().attributes is not None for path in root.iterdir())
    with pytest.raises(NotADirectoryError):
        (root / "Files/Windows/win.ini").iterdir()
    seen = []
    for top, directories, files in root.walk():
        seen.append((top.as_posix(), list(directories), files))
        if "System32" in directories:
            directories.remove("System32")
    assert seen == [
        ("", ["Files", "Hives"], []),
        ("Files", ["Windows"], ["archive.tar.gz", "junction", "link", "Ärger.txt"]),
        ("Files/Windows", ["System32"], ["win.ini"]),
        ("Hives", [], ["Software_Base"]),
    ]


GLOBS = {
    "*": ["Files", "Hives"],
    "files/WINDOWS/*/*.dll": ["Files/Windows/System32/Kernel32.DLL", "Files/Windows/System32/ntdll.dll"],
    "**/*.DLL": ["Files/Windows/System32/Kernel32.DLL", "Files/Windows/System32/ntdll.dll"],
    "**\\[a-k]*.dll": ["Files/Windows/System32/Kernel32.DLL"],
    "**/[!k]*.dll": ["Files/Windows/System32/ntdll.dll"],
    "Hives/**": ["Hives", "Hives/Software_Base"],
    "**/Windows/**/*.???": [
        "Files/Windows/System32/Kernel32.DLL",
        "Files/Windows/System32/ntdll.dll",
        "Files/Windows/win.ini",
    ],
    "*/*/": ["Files/Windows"],
    "**/ärger.*": ["Files/Ärger.txt"],
    "x/*": [],
    "Hives/Software_Base/*": [],
}


@pytest.mark.parametrize("pattern", GLOBS)
def test_glob(root: CimPath, pattern: str) -> None:
    assert names(root.glob(pattern)) == GLOBS[pattern]
    assert names(root.glob(PureWindowsPath(pattern))) == GLOBS[pattern] or pattern.endswith("/")


def test_glob_below(root: CimPath) -> None:
    assert names((root / "Files").glob("*/*.ini")) == ["Files/Windows/win.ini"]
    assert names((root / "Files").rglob("*.dll")) == names(root.glob("**/*.dll"))
    assert names((root / "x").glob("*")) == []
    for wrong in ("", "/", "."):
        with pytest.raises(ValueError, match="not a pattern"):
            root.glob(wrong)
    for call in (root.glob, root.rglob, root.match):
        with pytest.raises(TypeError):
            call(b"*")  # type: ignore[arg-type]


def test_match(root: CimPath) -> None:
    path = root / "Files/Windows/System32/ntdll.dll"
    for pattern in ("*.DLL", "system32/nt*", "FILES/*/*/*", PureWindowsPath("System32\\*.dll")):
        assert path.match(pattern)
    for pattern in ("*.exe", "Windows/*", "*/*/*/*/*"):
        assert not path.match(pattern)
    with pytest.raises(ValueError, match=r"\*\*"):
        path.match("**/*.dll")


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3), max_size=6),
    st.lists(st.sampled_from(["a", "?", "*b", "**", "[ab]"]), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=examples(30))
def test_glob_is_that_of_pathlib(
    tmp_path_factory: pytest.TempPathFactory, tree: list[list[str]], pattern: list[str]
) -> None:
    if pattern[-1] == "**":
        pattern = [*pattern, "*"]  # what ** alone stands for depends on the version of Python
    directory = tmp_path_factory.mktemp("glob")
    for parts in tree:
        (directory / "tree").joinpath(*parts).mkdir(parents=True, exist_ok=True)
    (directory / "tree").mkdir(exist_ok=True)
    made = sorted((path.relative_to(directory / "tree") for path in (directory / "tree").rglob("*")), key=str)
    make_image(directory, "a.cim", {str(PureWindowsPath(path)): None for path in made})
    text = "/".join(pattern)
    expected = {path.relative_to(directory / "tree").as_posix() for path in (directory / "tree").glob(text)}
    with ImageReader(directory / "a.cim") as image:
        found = names(CimPath(image).glob(text))
    assert set(found) == expected
    assert len(set(found)) == len(found)


def test_hostile_trees_end(tmp_path: Path) -> None:
    builder = Builder()
    builder.save(tmp_path / "a.cim", small_tree(builder))
    builder.patch(tmp_path / "a.cim", "links of d", 8, struct.pack("<I", 5))  # d in itself
    root = CimPath(tmp_path / "a.cim")
    for call in (lambda: list(root.rglob("*")), lambda: list(root.walk())):
        with pytest.raises(CorruptImageError, match="lies in itself"):
            call()


def test_wrong_types(root: CimPath) -> None:
    calls: list[Callable[[], object]] = [
        lambda: root / b"x",  # type: ignore[operator]
        lambda: root / 5,  # type: ignore[operator]
        lambda: root.joinpath(None),  # type: ignore[arg-type]
        lambda: CimPath(root.image, b"x"),  # type: ignore[arg-type]
        lambda: CimPath(5),  # type: ignore[arg-type]
        lambda: os.fspath(root),  # type: ignore[call-overload]
        lambda: root.relative_to(5),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()


def test_it_is_a_traversable(root: CimPath) -> None:
    traversable: Traversable = root  # type: ignore[assignment]
    assert isinstance(traversable, Traversable)
    assert traversable.joinpath("Files", "Windows/win.ini").read_text("utf-8").startswith("one")


def test_a_file_in_an_image_in_other_readers(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("inside", "text")
    path = CimPath(make_image(tmp_path, "z.cim", {"a.zip": archive.getvalue()}), "a.zip")
    with path.open("rb") as file, zipfile.ZipFile(file) as zipped:
        assert zipped.read("inside") == b"text"


def test_entries_show_times_and_attributes(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        add(image, "f", attributes=0x21, last_write_time=133_485_408_000_000_009, creation_time=-1)
        image.commit()
    entry = CimPath(tmp_path / "a.cim", "f").stat()
    assert entry.attributes == FileAttributes.READONLY | FileAttributes.ARCHIVE == 0x21
    assert FileAttributes.ARCHIVE in entry.attributes
    assert "ARCHIVE" in repr(entry)
    assert entry.last_write_datetime is not None
    assert entry.last_write_datetime.isoformat() == "2024-01-01T00:00:00+00:00"
    assert entry.creation_datetime is None
    assert (entry.change_datetime, entry.last_access_datetime) != (None, None)


def test_every_call_takes_the_same_kinds_of_paths(tmp_path: Path) -> None:
    """Those that write as well: str with either slash, PurePath, and nothing else."""
    with writer(tmp_path, None, "a.cim") as image:
        image.create_file(PurePosixPath("d"), attributes=FileAttributes.DIRECTORY)
        image.create_file("d/f", size=1)
        image.write(b"x")
        image.create_alternate_stream("d/f:zone", 0)
        image.create_hard_link(PureWindowsPath("d\\link"), PurePosixPath("d/f"))
        image.create_file("d/gone")
        image.delete_path("d/gone")
        for wrong in (b"f", None, 5):
            calls: list[Callable[[Any], object]] = [
                image.create_file,
                image.delete_path,
                lambda path: image.create_hard_link(path, "d/f"),
                lambda path: image.create_alternate_stream(path, 0),
            ]
            for call in calls:
                with pytest.raises(TypeError, match="str or PurePath"):
                    call(wrong)
        image.commit()
    root = CimPath(tmp_path / "a.cim")
    assert sorted(path.as_posix() for path in root.rglob("*")) == ["d", "d/f", "d/link"]
    extract(root.image, PureWindowsPath("d"), tmp_path / "out")
    assert (tmp_path / "out" / "f").read_bytes() == b"x"
    for wrong in (b"d", 5, [5]):
        with pytest.raises(TypeError):
            extract(root.image, wrong, tmp_path / "new")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ImageReader is needed"):
        extract(tmp_path / "a.cim", "d", tmp_path / "new")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ImageReader is needed"):
        next(diff_images(root.image, tmp_path))  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
