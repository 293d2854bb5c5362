"""What the tests of Limits, and what each shape of untrusted input costs share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimfs_ext.image import ImageWriter
from cimlayer import Limits
from support.image_layers import bare_layer
from support.images import DIRECTORY, add, read_tree
from support.tars import TarBuilder

if sys.version_info >= (3, 14):
    pass
else:
    pass


MIB = 1 << 20


END = bytes(1024)


def tar_of(*entries: tuple[Any, ...]) -> bytes:
    """A tar from calls of TarBuilder: the method's name and its arguments."""
    builder = TarBuilder()
    for method, *arguments in entries:
        getattr(builder, method)(*arguments)
    return builder.finish()


def tree_of(tmp_path: Path, tar: bytes, limits: Limits | None = None) -> dict[str, bytes | None]:
    """The files of an image of a tar, None for directories; alternate streams as FILE:NAME."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "tar").write_bytes(tar)
    cimlayer.create_image(tmp_path / "images" / "a.cim", tmp_path / "tar", sync=False, limits=limits or Limits())
    found: dict[str, bytes | None] = {}
    for path, node in read_tree(tmp_path / "images" / "a.cim").items():
        found[path] = None if node.is_directory else node.data
        found |= {f"{path}:{name}": data for name, data in node.streams.items()}
    return found


SHARED = bytes(range(256)) * 4096  # 1 MiB, stored once


def fill(image: ImageWriter) -> None:
    """Thirty files of one content, one of them with a second name and a stream; a path of three components."""
    add(image, "d", attributes=DIRECTORY)
    add(image, "d\\e", attributes=DIRECTORY)
    for n in range(30):
        add(image, f"d\\e\\{n:02}", SHARED)
    image.create_alternate_stream("d\\e\\29:s", len(SHARED))
    image.write(SHARED)
    image.close_stream()
    image.create_hard_link("d\\link", "d\\e\\29")


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_layer(tmp_path_factory.mktemp("layers"), "1", fill)


def cim(layer: Path) -> Path:
    return cimlayer.get_cim_path_from_layer(layer)
