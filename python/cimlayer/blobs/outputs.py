"""Files that bytes go to."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, BinaryIO, Protocol

if sys.platform == "linux":
    import fcntl

_PIPE_SIZE = 1 << 20  # bytes; Linux lets everyone set as much (pipe(7), pipe-max-size)


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


def widen_pipe(file: BinaryIO) -> None:
    """Let a pipe hold more than 64 KiB, so that its two sides wait for each other less often. On Linux only."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # not a pipe, not even a file, or there is a lower limit
            descriptor = file.fileno()
            if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) < _PIPE_SIZE:
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
