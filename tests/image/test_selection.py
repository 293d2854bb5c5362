"""Paths and patterns that choose entries of an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimfs_ext.reader import ImageReader
from cimlayer.errors import PathNotFoundError
from cimlayer.image.selection import each_named
from support.images import make_image

FILES = {
    "Files": None,
    r"Files\notes.txt": b"",
    r"Files\notes[1].txt": b"",
    r"Files\ÄRGER.TXT": b"",
    r"Files\sub": None,
    r"Files\sub\deep": None,
    r"Files\sub\deep\last.txt": b"",
    "top.bin": b"",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("globs"), "one.cim", FILES)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["files/NOTES.txt"], [r"files\NOTES.txt"]),
        (["/", r"\top.bin"], ["", "top.bin"]),
        (["*.bin", "top.bin"], ["top.bin", "top.bin"]),
        (["/*"], ["Files", "top.bin"]),
        (["files/*.txt"], [r"Files\notes.txt", r"Files\notes[1].txt", r"Files\ÄRGER.TXT"]),
        ([r"FILES\ä*"], [r"Files\ÄRGER.TXT"]),
        (["last*"], [r"Files\sub\deep\last.txt"]),
        (["**/last.txt"], [r"Files\sub\deep\last.txt"]),
        (["files/**/*.txt"], [p for p in FILES if p.upper().endswith(".TXT") and p != r"Files\sub\deep\last.txt"]),
        (["files/sub/**"], [r"Files\sub\deep", r"Files\sub\deep\last.txt"]),
        (["Files/**/deep/"], [r"Files\sub\deep"]),
        (["**/**/last.txt"], [r"Files\sub\deep\last.txt"]),
        (["s*/"], [r"Files\sub"]),
        (["Files/notes[1].txt"], [r"Files\notes[1].txt"]),
        (["Files/note[r-t].txt"], [r"Files\notes.txt"]),
        (["Files/note[!s].t?t", "top.?in"], None),
        (["top.bin/*"], None),
        (["Files/[1]"], None),
    ],
)
def test_what_paths_and_patterns_name(image: Path, patterns: list[str], expected: list[str] | None) -> None:
    with ImageReader(image) as reader:
        if expected is None:
            with pytest.raises(PathNotFoundError, match=r"nothing in"):
                list(each_named(reader, patterns))
            return
        found = [path for path, _ in each_named(reader, patterns)]
    if patterns == ["files/**/*.txt"]:
        assert sorted(found) == sorted([*expected, r"Files\sub\deep\last.txt"])
    else:
        assert found == expected
