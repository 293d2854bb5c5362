"""Streams that are compressed: gzip block by block in threads, zstd as it comes.

Source of the form: RFC 1952 (a member), RFC 1951 (blocks of deflate, which an empty stored one aligns to bytes).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

from cimfs_ext.cpus import available_cpus

_BLOCK = 1 << 20  # bytes compressed at a time: none refers to the one before it, which costs 0.1 % of size
_BLOCKS_AHEAD = 2  # for each thread
_MAX_THREADS = 8  # whoever makes and hashes the bytes cannot keep more of them busy
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # of a member without a name or a time, of no particular system
_LAST_BLOCK = b"\3\0"  # an empty one


class Compressor(Protocol):
    """Bytes come in, and at some time the compressed ones come out."""

    def compress(self, data: Any, /) -> bytes:
        """What is ready by now."""

    def flush(self) -> bytes:
        """The rest."""

    def __enter__(self) -> Any:
        """Itself."""

    def __exit__(self, *exc_info: Any) -> object:
        """Give up what is not ready yet."""


class GzipCompressor:
    """One gzip member, whose bytes depend neither on the number of threads nor on the pieces that come in.

    They are those of ISA-L at its default level; of zlib where there is no ISA-L, as for Windows on ARM.
    """

    def __init__(self, jobs: int | None = None) -> None:
        """``jobs`` is the number of threads, by default that of the CPUs."""
        self._threads = min(available_cpus(), _MAX_THREADS) if jobs is None else jobs
        self._pool = ThreadPoolExecutor(self._threads, "cimlayer-gzip")
        self._pending: deque[tuple[Future[bytes], memoryview]] = deque()  # each with the block that it is made of
        self._compressed, self._crc32 = _deflater()
        self._block = memoryview(bytearray(_BLOCK))
        self._filled = 0
        self._free: list[memoryview] = []
        self._crc = 0
        self._size = 0
        self._ready = [_HEADER]

    def __enter__(self) -> GzipCompressor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes:
        """Take some bytes; returns what is compressed by now."""
        view = memoryview(data).cast("B")
        self._crc = self._crc32(view, self._crc)
        self._size += len(view)
        while len(view) >= _BLOCK - self._filled:
            room = _BLOCK - self._filled
            self._block[self._filled :] = view[:room]
            self._submit(self._block)
            self._block, self._filled = self._free.pop() if self._free else memoryview(bytearray(_BLOCK)), 0
            view = view[room:]
        self._block[self._filled : self._filled + len(view)] = view
        self._filled += len(view)
        return self._take_ready()

    def flush(self) -> bytes:
        """The end of the member."""
        self._submit(self._block[: self._filled])
        while self._pending:
            self._take_oldest()
        self._ready.append(_LAST_BLOCK)
        self._ready += (number.to_bytes(4, "little") for number in (self._crc, self._size & 0xFFFFFFFF))
        return self._take_ready()

    def _submit(self, block: memoryview) -> None:
        if len(self._pending) >= self._threads * _BLOCKS_AHEAD:
            self._take_oldest()
        self._pending.append((self._pool.submit(self._compressed, block), block))

    def _take_oldest(self) -> None:
        compressed, block = self._pending.popleft()
        self._ready.append(compressed.result())
        self._free.append(block)

    def _take_ready(self) -> bytes:
        ready = b"".join(self._ready)
        self._ready.clear()
        return ready


def _deflater() -> tuple[Callable[[memoryview], bytes], Callable[[memoryview, int], int]]:
    """What compresses a block to whole bytes of raw deflate, not its last ones, and what computes a CRC-32."""
    library: Any
    try:
        from isal import isal_zlib as library  # noqa: PLC0415  only where gzip is written
    except ImportError:
        library = zlib

    def compressed(block: memoryview) -> bytes:
        stream = library.compressobj(wbits=-zlib.MAX_WBITS)
        made: bytes = stream.compress(block)
        return made + stream.flush(zlib.Z_SYNC_FLUSH)  # type: ignore[no-any-return]

    return compressed, library.crc32


class ZstdCompressor:
    """One zstd frame, of level 3."""

    _LEVEL = 3

    def __init__(self) -> None:
        from cimlayer.blobs import zstd  # noqa: PLC0415  only where zstd is written

        stream = zstd.ZstdCompressor(self._LEVEL)
        self.compress: Callable[[Any], bytes] = stream.compress
        self.flush: Callable[[], bytes] = stream.flush

    def __enter__(self) -> ZstdCompressor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """There is nothing to give up."""
