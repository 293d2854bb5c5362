"""Reading ahead in a thread: the pieces of streams, one stream after another."""

from __future__ import annotations

import contextlib
import mmap
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import BinaryIO

from cimfs_ext.cpus import available_cpus
from cimlayer.blobs.arrival import LONGEST_WAIT, PIECE
from cimlayer.blobs.digests import Digest
from cimlayer.blobs.streams import LayerStream
from cimlayer.events import CancellationToken
from cimlayer.host.memory import whole_pages
from cimlayer.limits import DEFAULT_LIMITS, Limits

PIECES_AHEAD = 16  # enough for a large file or a slow write not to keep the reader waiting
_LONGEST_FAREWELL = 0.3  # seconds that a reader gets to end

Piece = tuple[memoryview, int]  # bytes of a tar, and how many bytes of its blob were read until then
_Read = tuple[LayerStream, memoryview, int] | LayerStream | BaseException  # a stream alone has ended


class PieceReader:
    """Hands out the pieces of streams, one stream after another, in order.

    With more than one job (default: as many as there are CPUs) a thread reads up to ``ahead`` pieces ahead, also from
    the next stream; the caller's thread hashes what it uses. What a stream raises is raised where its piece would have
    come. ``reading`` is the token that the streams were made with: leaving the ``with`` block cancels it, so the
    thread ends; only one that a foreign file object keeps waiting is left behind.
    """

    def __init__(
        self,
        streams: Iterable[contextlib.AbstractContextManager[LayerStream]],
        reading: CancellationToken,
        jobs: int | None = None,
        ahead: int = PIECES_AHEAD,
    ) -> None:
        self._streams = iter(streams)
        self._reading = reading
        self._thread: threading.Thread | None = None
        self._here: Generator[Piece, None, None] | None = None
        if (jobs if jobs is not None else available_cpus()) > 1:
            self._full: queue.SimpleQueue[_Read] = queue.SimpleQueue()
            self._free: queue.LifoQueue[mmap.mmap | None] = queue.LifoQueue()  # the last one used is in the cache
            for _ in range(ahead):
                self._free.put(whole_pages(PIECE))
            self._thread = threading.Thread(target=self._read_ahead, name="cimlayer-read", daemon=True)

    def __enter__(self) -> PieceReader:
        """Begin to read."""
        if self._thread is not None:
            try:
                self._thread.start()
            except RuntimeError:  # the system has none left
                self._thread = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading."""
        self._reading.cancel()
        if self._here is not None:
            self._here.close()  # and the stream with it, whoever holds the pieces still
        if self._thread is not None:
            self._free.put(None)
            self._thread.join(_LONGEST_FAREWELL)

    def pieces(self) -> Iterator[Piece]:
        """The pieces of the next stream; each is valid until the next one is asked for."""
        if self._thread is not None:
            return self._pieces_read_ahead()
        self._here = self._pieces_read_here()
        return self._here

    def _pieces_read_here(self) -> Generator[Piece, None, None]:
        buffer = memoryview(whole_pages(PIECE))
        with next(self._streams) as stream:
            while count := stream.readinto(buffer):
                stream.used(buffer[:count])
                yield buffer[:count], stream.position
            stream.finish()

    def _pieces_read_ahead(self) -> Iterator[Piece]:
        while isinstance(item := self._next(), tuple):
            stream, piece, position = item
            stream.used(piece)
            yield piece, position
            assert isinstance(piece.obj, mmap.mmap)
            self._free.put(piece.obj)
        if isinstance(item, BaseException):
            raise item
        item.finish()

    def _next(self) -> _Read:
        while True:
            try:
                return self._full.get(timeout=LONGEST_WAIT)
            except queue.Empty:
                self._reading.raise_if_cancelled()

    def _read_ahead(self) -> None:
        try:
            for opened in self._streams:
                with opened as stream:
                    while (buffer := self._free.get()) is not None:
                        piece = memoryview(buffer)
                        count = stream.readinto(piece)
                        if not count:
                            self._free.put(buffer)
                            break
                        self._full.put((stream, piece[:count], stream.position))
                    if buffer is None:
                        return
                self._full.put(stream)
        except BaseException as error:
            self._full.put(error)


@contextlib.contextmanager
def tar_pieces(
    blob: BinaryIO,
    cancel: CancellationToken,
    *,
    digest: Digest | None = None,
    diff_id: Digest | None = None,
    limits: Limits = DEFAULT_LIMITS,
    jobs: int | None = None,
    name: str = "",
) -> Iterator[Iterator[Piece]]:
    """The pieces of one tar; the arguments are those of LayerStream and PieceReader."""
    reading = CancellationToken(cancel)
    stream = LayerStream(blob, digest=digest, diff_id=diff_id, limits=limits, cancel=reading, name=name)
    with PieceReader([contextlib.nullcontext(stream)], reading, jobs) as reader:
        yield reader.pieces()
