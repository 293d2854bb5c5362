"""What the tests of extract share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimlayer.image.extract import Extraction, extract
from support.image_layers import MOUNT_POINT, link_data
from support.images import add, writer

DIRECTORY, SPARSE = 0x10, 0x200


def extracted(image: Path, destination: Path, path: str = "", **options: Any) -> Extraction:
    with cimlayer.ImageReader(image) as reader:
        return extract(reader, path, destination, **options)


def tree(directory: Path) -> dict[str, bytes | str | None]:
    """Content by path; None for a directory, the target for a symbolic link."""
    found: dict[str, bytes | str | None] = {}
    # In Python 3.10, rglob fails on a link to too long a name.
    paths = [Path(parent, name) for parent, *names in os.walk(directory) for name in (*names[0], *names[1])]
    for path in sorted(paths, key=lambda path: path.parts):  # in which case counts on Windows, too
        name = path.relative_to(directory).as_posix()
        found[name] = str(path.readlink()) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return found


@pytest.fixture
def links(tmp_path: Path) -> Path:
    with writer(tmp_path, None, "links.cim") as image:
        add(image, "target", b"x")
        add(image, "d", attributes=DIRECTORY)
        add(image, r"d\e", attributes=DIRECTORY)
        for name, data in {
            "good": link_data("target"),
            r"d\up": link_data(r"..\target"),
            r"d\e\top": link_data(r"..\.."),
            r"d\e\escape": link_data(r"..\..\.."),
            "escape": link_data(r"..\x"),
            "later": link_data(r"d\e\top\..\x"),
            "rooted": link_data(r"\etc\passwd"),
            "drive": link_data(r"C:\Windows", relative=False),
            "lies": link_data(r"C:\Windows"),
            "absolute": link_data("target", relative=False),
            "shows another": link_data("target", shown="d"),
            "shows less": link_data(r"..\x", shown="x"),
            "leads nowhere": link_data("", shown="target"),
            "long": link_data("é" * 511, shown=""),
            "too long": link_data("é" * 512, shown=""),
            "mount": link_data(r"C:\Windows", tag=MOUNT_POINT),
        }.items():
            add(image, name, reparse_data=data)
        add(image, "full", attributes=DIRECTORY, reparse_data=link_data("d"))
        add(image, r"full\inside", b"inside")
        add(image, "bare", attributes=DIRECTORY, reparse_data=link_data("d"))
        image.commit()
    return tmp_path / "links.cim"
