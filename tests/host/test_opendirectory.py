"""A directory held open: its errors say which file is meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cimlayer.host.opendirectory import OpenDirectory
from support.platforms import HAS_SYMLINKS, needs_symlinks, posix_only

CALLS: dict[str, tuple[Callable[[OpenDirectory], object], str]] = {
    "make_directory": (lambda here: here.make_directory("file"), "file"),
    "create": (lambda here: here.create("file"), "file"),
    "open": (lambda here: here.open("none"), "none"),
    "open a directory": (lambda here: here.open("d"), "d"),
    "enter": (lambda here: OpenDirectory(here.path / "file", here), "file"),
    "enter by a link": (lambda here: OpenDirectory(here.path / "link", here), "link"),
    "remove": (lambda here: here.remove("none"), "none"),
    "remove a directory": (lambda here: here.remove("d"), "d"),
    "move": (lambda here: here.move("none", here, "new"), "none"),
    "link": (lambda here: here.link("none", here, "new"), "none"),
    "sync": (lambda here: here.sync("none"), "none"),
    "status": (lambda here: here.is_directory("n" * 300), "n" * 300),
}


NOT_EVERYWHERE = {
    "enter by a link": needs_symlinks,
    "status": posix_only("names that are too long for a question"),
}


@pytest.mark.parametrize("call", [pytest.param(call, marks=NOT_EVERYWHERE.get(call, ())) for call in CALLS])
def test_errors_name_the_whole_path(tmp_path: Path, call: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "d/inside").mkdir(parents=True)
    if HAS_SYMLINKS:
        (tmp_path / "link").symlink_to("d")
    do, name = CALLS[call]
    with OpenDirectory(tmp_path) as here, pytest.raises(OSError, match=name) as caught:
        do(here)
    assert caught.value.filename == str(tmp_path / name)
    assert caught.value.filename2 == (str(tmp_path / "new") if call in ("move", "link") else None)


def test_files_can_be_synced_whatever_they_were_opened_for(tmp_path: Path) -> None:
    with OpenDirectory(tmp_path) as here:
        with here.create("file") as file:
            file.write(b"x")
        here.sync("file")
        here.sync()
