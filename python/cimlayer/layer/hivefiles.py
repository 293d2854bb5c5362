"""Hive files that a layer or an image brings: no more of one is read than a hive can be."""

from __future__ import annotations

import io
from typing import BinaryIO

from cimfs_ext.reader import ImageReader

_BASE_BLOCK = 4096
_BINS_SIZE = slice(40, 44)  # in the base block: bytes of the hive bins that follow it
_MOST_BINS = (1 << 31) - 1


def read_hive(file: BinaryIO) -> bytes:
    """The hive at the beginning of a seekable file, for ``Hive.open`` to judge (docs/format.md, "Hives").

    As many bytes as the base block says that there are, not more than 2 GiB; of what does not begin as a hive does
    just so much that it can be told.
    """
    base = file.read(_BASE_BLOCK)
    bins = int.from_bytes(base[_BINS_SIZE], "little")
    if not base.startswith(b"regf") or bins > _MOST_BINS:
        return base
    there = file.seek(0, io.SEEK_END)
    file.seek(0)
    return file.read(min(_BASE_BLOCK + bins, there))


def read_hive_of(image: ImageReader, path: str) -> bytes:
    """The same for a file of an image."""
    with io.BufferedReader(image.open(path)) as file:
        return read_hive(file)
