"""Hive files that a layer or an image brings: no more of one is read than a hive can be."""

from __future__ import annotations

import contextlib
import io
from typing import BinaryIO

from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive
from cimlayer.formats.hivelogs import logs_among
from cimlayer.layer.directory import LayerDirectory

_BASE_BLOCK = 4096
_BINS_SIZE = slice(40, 44)  # in the base block: bytes of the hive bins that follow it
_MOST_BINS = (1 << 31) - 1
_MOST_LOG = 1 << 26  # bytes: Windows lets a log grow to a fraction of that


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


def open_in_directory(directory: LayerDirectory, path: str, name: str, *, may_be_empty: bool = False) -> Hive:
    """Open a hive of a layer directory, with the logs beside it; errors call it ``name``.

    ``may_be_empty``: a file of 0 bytes, as base layers of build tools have, counts as a hive without content.
    """
    with directory.open(path) as file:
        data = read_hive(file)
    folder, _, hive = path.rpartition("\\")
    logs = []
    for log in logs_among(hive, directory.names(folder)):
        with directory.open(f"{folder}\\{log}" if folder else log) as file:
            logs.append(file.read(_MOST_LOG))
    if may_be_empty and not data:
        return Hive.empty(0, name=name)
    return Hive.open(data, logs=logs, name=name)


def open_in_image(image: ImageReader, path: str, name: str) -> Hive:
    """Open a hive of an image, with the logs beside it; one of 0 bytes has no content. Errors call it ``name``."""
    with io.BufferedReader(image.open(path)) as file:
        data = read_hive(file)
    folder, _, hive = path.replace("/", "\\").rpartition("\\")
    logs = []
    for log in logs_among(hive, [entry.name for entry in image.listdir(folder)]):
        with (
            contextlib.suppress(IsADirectoryError),
            io.BufferedReader(image.open(f"{folder}\\{log}" if folder else log)) as file,
        ):
            logs.append(file.read(_MOST_LOG))
    return Hive.open(data, logs=logs, name=name) if data else Hive.empty(0, name=name)
