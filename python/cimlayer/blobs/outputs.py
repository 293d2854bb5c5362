"""Files that bytes go to."""

from __future__ import annotations

import errno
import io
import os
from typing import Any, BinaryIO, Protocol


class Output(Protocol):
    """Where bytes go."""

    def write(self, data: Any, /) -> object:
        """Take all of them."""


class _Unbuffered:
    """Writes until all is written: a pipe takes less when a signal comes, if only to stop and go on (POSIX, write)."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        left = memoryview(data)
        while left:
            count = self._file.write(left)
            if count is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            left = left[count:]


def whole_writes(file: BinaryIO) -> Output:
    """The file, if a write to it takes everything, as those of buffered files do; else one that does."""
    return _Unbuffered(file) if isinstance(file, io.RawIOBase) else file
