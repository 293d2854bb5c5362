"""Where the bytes of a hive and of its logs come from: a buffer, or a file."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from typing import TYPE_CHECKING, Protocol

from cimfs_ext.errors import CorruptHiveError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MAX_FILE = 4096 + (1 << 31)  # base block and bins, where the top bit of an offset means volatile storage
_PIECE = 1 << 20


class BinaryReader(Protocol):
    """What is needed of a binary file."""

    def read(self, size: int, /) -> bytes:
        """At most that many bytes; none at the end."""


def load(source: Buffer | str | os.PathLike[str] | BinaryReader) -> Buffer:
    """The buffer itself, or the bytes of the regular file at a path, or what is left of an open binary file."""
    if source is None:  # which Cython takes for an empty buffer
        raise TypeError("a path, a bytes-like object or a binary file is required, not None")
    if not isinstance(source, (str, os.PathLike)):
        return _rest(source) if hasattr(source, "read") and not isinstance(source, mmap.mmap) else source
    with open(source, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(source))
        if status.st_size > _MAX_FILE:
            raise CorruptHiveError("the file is larger than a hive can be", os.fspath(source), _MAX_FILE)
        return file.read()


def _rest(file: BinaryReader) -> bytearray:
    """In pieces: a buffer of the most that a hive can be is too much for most."""
    data = bytearray()
    while piece := file.read(_PIECE):
        data += piece
        if len(data) > _MAX_FILE:
            raise CorruptHiveError("the file is larger than a hive can be", name_of(file), _MAX_FILE)
    return data


def name_of(source: object) -> str:
    """What errors call it, if nobody says."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "hive"


def load_log(source: Buffer | str | os.PathLike[str] | BinaryReader) -> bytes:
    """A log's content, copied where it could change while it is applied."""
    data = load(source)
    return data if type(data) is bytes else bytes(memoryview(data))
