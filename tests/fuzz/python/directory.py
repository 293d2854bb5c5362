"""A directory of images whose files were tampered with: they can be used, or the error is one that is documented."""

from __future__ import annotations

import shutil
import struct
from functools import cache
from pathlib import Path

from cimlayer.errors import FormatError, ImageError
from cimlayer.image.inspect import inspect_image
from cimlayer.layer.garbage import collect_garbage
from cimlayer.layer.paths import get_cim_dir_from_layer
from fuzz.python.scratch import PARENT, layers, scratch, use
from support import cimoracle
from support.image_layers import import_tar
from support.tars import TarBuilder, windows_pax

CHILD = "child"
PATCH = struct.Struct("<BBIB")
WRITE, CUT, REMOVE, LINK = range(4)
UPCASE_SIZE = 131072


def seeds() -> dict[str, bytes]:
    """Patches: what is done, to which file, where, and the size of the bytes that follow."""
    places = [(file, place) for file in range(14) for place in (8, 90, 4200)]
    written = {f"write-{file}-{place}": PATCH.pack(WRITE, file, place, 4) + b"\xff\1\0\0" for file, place in places}
    return written | {
        "nothing": b"",
        "cut": PATCH.pack(CUT, 2, 4000, 0),
        "removed": PATCH.pack(REMOVE, 2, 0, 0),
        "link": PATCH.pack(LINK, 3, 0, 0),
        "twice": (PATCH.pack(WRITE, 0, 20, 1) + b"\5") * 2,
    }


@cache
def _good() -> dict[str, bytes]:
    """The files of a directory of two images; those first that readers need."""
    root = layers()
    tar = TarBuilder()
    tar.file("Files/new", b"new", pax=windows_pax(0x20, eas={"A": b"1"}, sddl="O:BAG:SY"))
    tar.stream("Files/new", "zone", b"stream")
    tar.symlink("Files/link", "a.txt")
    tar.whiteout("Files/b.txt")
    import_tar(root, CHILD, tar, [PARENT])
    directory = get_cim_dir_from_layer(root / CHILD)
    return {
        path.name: path.read_bytes()
        for pattern in ("*.cim", "region_*", "objectid_*")
        for path in sorted(directory.glob(pattern))
    }


@cache
def _upcase_places() -> dict[str, int]:
    """Where each region has the upcase table: 128 KiB that would take nearly all patches."""
    good = scratch() / "good"
    good.mkdir()
    for name, data in _good().items():
        (good / name).write_bytes(data)
    image = cimoracle.Image(good, f"{PARENT}.cim")
    (upcase,) = struct.unpack_from("<Q", image.at(image.header.filesystem_offset, 8, "filesystem object"))
    shutil.rmtree(good)
    return {f"region_{image.header.region_names[upcase >> 48]}": upcase & 0xFFFFFFFFFFFF}


def run(data: bytes) -> None:
    """Patch good files, and use the layers that they are of."""
    good = _good()
    root = scratch() / "hostile"
    images = get_cim_dir_from_layer(root / CHILD)
    images.mkdir(parents=True)
    try:
        for name, content in good.items():
            (images / name).write_bytes(content)
        _patch(images, list(good), data)
        for layer, parent in ((CHILD, PARENT), (PARENT, None)):
            try:
                use(root / layer, None if parent is None else root / parent, sound=False)
                inspect_image(images / f"{layer}.cim")
                collect_garbage(images)
            except (FormatError, ImageError, ValueError) as error:
                assert str(error)
    finally:
        shutil.rmtree(root)


def _patch(images: Path, names: list[str], patches: bytes) -> None:
    while len(patches) >= PATCH.size:
        kind, which, place, size = PATCH.unpack_from(patches)
        patches = patches[PATCH.size :]
        path = images / names[which % len(names)]
        if not path.is_file() or path.is_symlink():
            continue
        if kind % 4 == WRITE:
            _write(path, place, patches[:size])
            patches = patches[size:]
        elif kind % 4 == CUT:
            with path.open("r+b") as file:
                file.truncate(place % (path.stat().st_size + 1))
        elif kind % 4 == REMOVE:
            path.unlink()
        else:
            path.unlink()
            path.symlink_to(names[place % len(names)])


def _write(path: Path, place: int, data: bytes) -> None:
    upcase = _upcase_places().get(path.name)
    size = path.stat().st_size
    if upcase is not None and size > upcase + UPCASE_SIZE:
        place %= size - UPCASE_SIZE
        place += UPCASE_SIZE if place >= upcase else 0
    else:
        place %= size + 1
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data[: size - place])
