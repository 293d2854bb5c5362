"""Where the bytes of a hive and of its logs come from: a buffer, or a file."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, Protocol

from cimfs_ext.errors import CorruptHiveError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MAX_FILE = 4096 + (1 << 31)  # base block and bins, where the top bit of an offset means volatile storage
_PIECE = 1 << 20
_HUGE_BLOCK = 1 << 22  # bytes from which memory is asked for in huge pages
_HUGE_PAGE = 1 << 21


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
    with open(source, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(source))
        if status.st_size > _MAX_FILE:
            raise CorruptHiveError("the file is larger than a hive can be", os.fspath(source), _MAX_FILE)
        return read_file(file, status.st_size)


def read_file(file: BinaryIO, size: int) -> memoryview:
    """Up to ``size`` bytes from where a file is; fewer only at its end.

    Where the system has huge pages, large blocks use them: in pages of 4 KiB, getting the memory takes longer than
    reading the file into it.
    """
    if size < _HUGE_BLOCK or not hasattr(mmap, "MADV_HUGEPAGE"):
        data = memoryview(bytearray(size))
    else:
        try:
            whole = -(-size // _HUGE_PAGE) * _HUGE_PAGE  # which the system aligns
            block = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError from error
        with contextlib.suppress(OSError):  # a kernel without huge pages
            block.madvise(mmap.MADV_HUGEPAGE)
        data = memoryview(block)[:size]
    used = 0
    while used < size and (count := file.readinto(data[used:])):  # type: ignore[attr-defined]
        used += count
    return data[:used]


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
