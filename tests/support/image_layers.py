"""Layers without hives and disks: an image where that of a layer lies, and tars that are imported."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import cimlayer
from cimfs_ext.image import ImageWriter
from cimfs_ext.regf import Hive
from cimlayer.layer.paths import get_cim_path_from_layer
from support.tars import TarBuilder

HIVE_NAMES = ("SYSTEM", "SOFTWARE", "SAM", "SECURITY", "DEFAULT")
SYMLINK, MOUNT_POINT = 0xA000000C, 0xA0000003


def base_tar() -> TarBuilder:
    """What every base layer must have."""
    builder = TarBuilder()
    hive = Hive.empty(0).to_bytes()
    for name in HIVE_NAMES:
        builder.file(f"Files/Windows/System32/config/{name}", hive)
    return builder


def import_tar(root: Path, name: str, builder: TarBuilder, parents: list[str] | None = None) -> Path:
    """A layer of a tar; returns its directory."""
    tar = root / f"{name}.tar"
    tar.write_bytes(builder.finish())
    above = [root / parent for parent in parents or []]
    cimlayer.import_layer(tar, root / name, above, sync=False, reproducible=True)
    return root / name


def bare_layer(root: Path, name: str, fill: Callable[[ImageWriter], None], parent: str | None = None) -> Path:
    """A layer that is nothing but its image."""
    image = get_cim_path_from_layer(root / name)
    image.parent.mkdir(exist_ok=True)
    with ImageWriter(image.parent, parent and f"{parent}.cim", image.name, sync=False) as writer:
        fill(writer)
        writer.commit()
    return root / name


def link_data(target: str, *, shown: str | None = None, tag: int = SYMLINK, relative: bool = True) -> bytes:
    """A REPARSE_DATA_BUFFER; its print name is the target too unless another one is given."""
    names = [name.encode("utf-16-le", "surrogatepass") for name in (target, target if shown is None else shown)]
    body = struct.pack("<4H", 0, len(names[0]), len(names[0]) + 2, len(names[1]))
    body += struct.pack("<I", relative) if tag == SYMLINK else b""
    body += b"".join(name + b"\0\0" for name in names)
    return struct.pack("<IHH", tag, len(body), 0) + body
