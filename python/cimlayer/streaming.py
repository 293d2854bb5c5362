"""Bytes from a file to a consumer: decompression by content, and reading ahead in a thread."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol, TypeVar

from cimlayer.errors import FormatError

_T = TypeVar("_T")

PIECE = 1 << 20  # bytes handed on at a time: they stay in the cache between producer and consumer
PIECES_AHEAD = 4
GRACE = 0.2  # seconds that a failed import waits for its reading thread

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes([0x50 + n, 0x2A, 0x4D, 0x18]) for n in range(16))


class Readable(Protocol):
    """A binary stream as the pump uses it."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill a part of the buffer; 0 at the end."""


class _Prefixed(io.RawIOBase):
    """A stream whose first bytes were read already, to see what it is."""

    def __init__(self, prefix: bytes, stream: BinaryIO) -> None:
        super().__init__()
        self._prefix = prefix
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if self._prefix:
            count = min(len(buffer), len(self._prefix))
            buffer[:count] = self._prefix[:count]
            self._prefix = self._prefix[count:]
            return count
        readinto = getattr(self._stream, "readinto", None)
        if readinto is not None:
            return int(_present(readinto(buffer)))
        data = _present(self._stream.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)


def _present(result: _T | None) -> _T:
    """What a read gave; a stream that has nothing yet must not be taken for one that has ended."""
    if result is None:
        raise BlockingIOError(errno.EAGAIN, "the source must be a stream that waits for its data")
    return result


@contextlib.contextmanager
def decompressed(stream: BinaryIO) -> Iterator[Readable]:
    """The plain bytes of a stream that is plain, gzip (any number of members) or zstd (any number of frames)."""
    prefix = _read_exactly(stream, 4)
    raw = _Prefixed(prefix, stream)
    if prefix[:2] == _GZIP_MAGIC:
        from isal import igzip  # noqa: PLC0415  only where a gzip file is read

        with _errors_named("gzip", igzip.BadGzipFile, EOFError, igzip.isal_zlib.error):
            yield igzip.IGzipFile(fileobj=raw, mode="rb")
    elif prefix == _ZSTD_MAGIC or prefix in _ZSTD_SKIPPABLE:
        zstd = _zstd()
        with _errors_named("zstd", zstd.ZstdError, EOFError):
            yield zstd.ZstdFile(raw, "rb")
    else:
        yield raw


def _zstd():  # type: ignore[no-untyped-def]
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415
    else:
        from backports import zstd  # noqa: PLC0415
    return zstd


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := _present(stream.read(size - len(data)))):
        data += more
    return data


@contextlib.contextmanager
def _errors_named(what: str, *kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        raise FormatError(f"the {what} stream is damaged or cut: {error}", what) from error


def available_cpus() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pump(stream: Readable, feed: Callable[[memoryview], object], jobs: int | None = None) -> None:
    """Hand all bytes of a stream to ``feed``, piece by piece.

    With more than one job (default: as many as there are CPUs) a thread reads ahead, by a fixed number of pieces that
    are used again and again. What either side raises is raised here. The thread has ended when this returns; only
    one that waits for a pipe when ``feed`` fails or Ctrl-C is pressed is left behind, as nothing can wake it: it ends
    with what the pipe brings next, or with the program.
    """
    if (jobs if jobs is not None else available_cpus()) < 2:
        piece = memoryview(bytearray(PIECE))
        while count := stream.readinto(piece):
            feed(piece[:count])
        return
    free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
    full: queue.SimpleQueue[memoryview | BaseException | None] = queue.SimpleQueue()
    for _ in range(PIECES_AHEAD):
        free.put(memoryview(bytearray(PIECE)))
    stop = threading.Event()
    thread = threading.Thread(target=_read_ahead, args=(stream, free, full, stop), name="cimlayer-read", daemon=True)
    thread.start()
    try:
        while (item := full.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            feed(item)
            assert isinstance(item.obj, bytearray)
            free.put(memoryview(item.obj))
    finally:
        stop.set()
        free.put(None)
        thread.join(GRACE)


def _read_ahead(
    stream: Readable,
    free: queue.SimpleQueue[memoryview | None],
    full: queue.SimpleQueue[memoryview | BaseException | None],
    stop: threading.Event,
) -> None:
    try:
        while (piece := free.get()) is not None:
            filled = 0
            while filled < len(piece) and not stop.is_set() and (count := stream.readinto(piece[filled:])):
                filled += count
            if filled:
                full.put(piece[:filled])
            if filled < len(piece):
                break
        full.put(None)
    except BaseException as error:
        full.put(error)
