"""Directories of targets that work on files, and what is looked for in them."""

from __future__ import annotations

import atexit
import errno
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cimlayer
from cimfs_ext.names import upcase_key
from cimfs_ext.reader import ImageReader
from cimlayer.errors import FormatError
from cimlayer.image.compare import diff_images
from cimlayer.image.extract import extract
from cimlayer.layer.paths import get_cim_path_from_layer
from cimlayer.layer.standard import UTILITY_VM_BCD
from cimlayer.oci.export_layer import export_layer
from support.image_layers import base_tar, import_tar
from support.tars import BLOCK, TarBuilder

PARENT = "parent"


@cache
def scratch() -> Path:
    """A directory of this process; libFuzzer ends it without a farewell, and then the driver removes the directory."""
    path = Path(tempfile.mkdtemp(prefix="cimlayer-fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def layers() -> Path:
    """A directory with one layer, the parent of all that are tried."""
    root = scratch() / "layers"
    root.mkdir()
    tar = base_tar()
    tar.file("Files/a.txt", b"content")
    tar.stream("Files/a.txt", "zone", b"stream")
    tar.file("Files/d/e/f", b"deep")
    tar.hardlink("Files/b.txt", "Files/a.txt")
    import_tar(root, PARENT, tar)
    return root


def names_below(root: Path) -> list[str]:
    """Everything below a directory, by path."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def with_checksums(tar: bytes) -> bytes:
    """Every block that looks like a header with the checksum that it ought to have."""
    data = bytearray(tar)
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    return bytes(data)


def use(layer: Path, parent: Path | None, *, sound: bool) -> bytes | None:
    """List, check, extract, export and compare a layer, which is ``sound`` or raises the errors that are documented.

    Returns the exported tar, or None if the layer has what a tar cannot carry.
    """
    image_path = get_cim_path_from_layer(layer)
    with ImageReader(image_path) as image:
        for path, entry in image.walk():
            assert image.stat(path).name.casefold() == entry.name.casefold()
            image.streams(entry)
        report = image.verify()
        if sound:
            assert report.problems == ()
            assert report.unjudged == 0
        target = scratch() / "extracted"
        try:
            extract(image, "", target, metadata="sidecar", symlinks=True, jobs=1)
        except OSError as error:
            if sound or error.errno != errno.EFBIG:  # a damaged image may have a file of any size
                raise
        finally:
            for made in (target, target.with_name(f"{target.name}.metadata")):
                shutil.rmtree(made, ignore_errors=True)
        if parent is not None:
            with ImageReader(get_cim_path_from_layer(parent)) as older:
                for _ in diff_images(older, image):
                    pass
    tar = _SmallDisk()
    try:
        export_layer(layer, [] if parent is None else [parent], tar)
    except FormatError:
        return None
    except OSError as error:
        if sound or error is not tar.error:
            raise
        return None
    return tar.getvalue()


class _SmallDisk(io.BytesIO):
    """Holds no more than so much: a damaged image may have a sparse file of any size."""

    ROOM = 1 << 26
    error: OSError | None = None

    def write(self, data: bytes | memoryview, /) -> int:
        if self.tell() > self.ROOM:
            self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.error
        return super().write(data)


def same_trees(one: Path, other: Path) -> bool:
    """Whether two layers have the same tree, but for the boot store, which names its layer."""
    with ImageReader(get_cim_path_from_layer(one)) as older, ImageReader(get_cim_path_from_layer(other)) as newer:
        return all(upcase_key(change.path) == upcase_key(UTILITY_VM_BCD) for change in diff_images(older, newer))


def leaving_nothing(root: Path, work: Callable[[], None], *refusals: type[BaseException]) -> bool:
    """Whether ``work`` was done; if it was refused, nothing may be there that was not before."""
    before = names_below(root)
    try:
        work()
    except refusals as error:
        assert str(error)
        assert names_below(root) == before, f"left behind by {error!r}"
        return False
    return True


def destroy(layer: Path) -> None:
    """Remove a layer of the scratch directory."""
    cimlayer.destroy_cim_layer(layer)


__all__ = [
    "PARENT",
    "TarBuilder",
    "destroy",
    "layers",
    "leaving_nothing",
    "names_below",
    "same_trees",
    "scratch",
    "use",
    "with_checksums",
]
