"""Bytes as they arrive from a file, a pipe or a stream: counted, hashed, and given up when cancelled."""

from __future__ import annotations

import contextlib
import errno
import io
import operator
import os
import select
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, SupportsIndex, TypeVar

from cimlayer.blobs.digests import Digest
from cimlayer.events import CancellationToken
from cimlayer.host.interrupts import interruptible

_T = TypeVar("_T")

PIECE = 1 << 19  # bytes handed on at a time: of the sizes tried, the fastest where two cores share the work
STANDARD_INPUT = "-"
LONGEST_WAIT = 0.1  # seconds between two looks at the cancellation token


def open_source(path: str | os.PathLike[str]) -> BinaryIO:
    """A file to read a tar from, without a buffer."""
    return open(path, "rb", buffering=0, opener=_without_waiting)


@contextlib.contextmanager
def opened_source(source: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    """A file to read a tar from, by its path, as ``-`` for standard input, or opened by the caller."""
    if source == STANDARD_INPUT:
        # Without its buffer: a thread that waits for a pipe must not hold a lock that the interpreter's end needs.
        yield getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    elif isinstance(source, (str, os.PathLike)):
        with open_source(source) as file:
            yield file
    elif not hasattr(source, "read"):
        raise TypeError(f"a source is str, os.PathLike or a binary file, not {type(source).__name__}")
    else:
        yield source


def source_name(source: str | os.PathLike[str] | BinaryIO) -> str:
    """How errors call it; empty for what the caller opened."""
    if isinstance(source, (str, os.PathLike)):
        return "standard input" if source == STANDARD_INPUT else os.fspath(source)
    return ""


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that nobody writes to yet is waited for where it is read: there it can be cancelled."""
    if os.name != "posix":
        if Path(path).is_dir():  # whose error would be that permission is denied
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return os.open(path, flags)
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


class ArrivingBlob(io.RawIOBase):
    """The bytes of a blob as they come: counted, hashed, and given up when the operation is cancelled."""

    def __init__(self, stream: BinaryIO, digest: Digest | None, cancel: CancellationToken) -> None:
        super().__init__()
        self._stream = stream
        self._readinto = getattr(stream, "readinto", None)
        self._arrival = _arrival(stream)
        self._cancel = cancel
        self._prefix = b""
        self.hash = digest.new_hash() if digest is not None else None
        self.position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def peek(self, size: int) -> bytes:
        """The first bytes, which will be read again."""
        while len(self._prefix) < size:
            piece = memoryview(bytearray(size - len(self._prefix)))
            count = self._fill(piece)
            if not count:
                break
            self._prefix += piece[:count]
        return self._prefix

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Take what has arrived; 0 at the end."""
        if self._prefix:
            count = min(len(buffer), len(self._prefix))
            buffer[:count] = self._prefix[:count]
            self._prefix = self._prefix[count:]
            return count
        return self._fill(buffer)

    def drain(self) -> None:
        """Read what is left: it counts, though nobody needs it."""
        piece = memoryview(bytearray(PIECE))
        while self.readinto(piece):
            pass

    def _fill(self, buffer: memoryview) -> int:
        self._cancel.raise_if_cancelled()
        while self._arrival is not None and not self._arrival.poll(LONGEST_WAIT * 1000):
            self._cancel.raise_if_cancelled()
        with interruptible():
            count = self._read(buffer)
        if self.hash is not None:
            self.hash.update(buffer[:count])
        self.position += count
        return count

    def _read(self, buffer: memoryview) -> int:
        if self._readinto is not None:
            return _checked(_present(self._readinto(buffer)), len(buffer))
        data = _present(self._stream.read(len(buffer)))
        count = _checked(len(data), len(buffer))
        buffer[:count] = data
        return count


def _checked(count: SupportsIndex, size: int) -> int:
    """How many bytes a read gave; a number that cannot be would make content of what was in the buffer before."""
    count = operator.index(count)
    if not 0 <= count <= size:
        raise OSError(errno.EIO, f"the source says that it read {count} bytes into a buffer of {size}")
    return count


def _present(result: _T | None) -> _T:
    """What a read gave; a stream that has nothing yet must not be taken for one that has ended."""
    if result is None:
        raise BlockingIOError(errno.EAGAIN, "the source must be a stream that waits for its data")
    return result


def _arrival(stream: BinaryIO) -> select.poll | None:
    """What tells of bytes to read, for the unbuffered file of a pipe or a terminal: a read there may wait for ever.

    Any other stream may have bytes of which its descriptor does not tell, as one of TLS does.
    """
    if os.name != "posix" or not isinstance(stream, io.FileIO):
        return None
    descriptor = stream.fileno()
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
        return None
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll
