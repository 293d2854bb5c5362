"""The threads that write the files of an extraction."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from types import TracebackType

from cimfs_ext.cpus import available_cpus
from cimfs_ext.extractor import FileExtractor
from cimfs_ext.reader import ImageReader
from cimlayer.errors import ImageError
from cimlayer.events import CancellationToken
from cimlayer.host import beneath

Written = Callable[[list[tuple[int, bytes]], list[bytes], int], object]

_BATCHES_AHEAD = 32  # each holds a directory open
_MAX_THREADS = 4
_LONGEST_WAIT = 0.1  # seconds until a cancelled extraction is noticed


@dataclass(slots=True)
class Place:
    """A directory, as the image calls it and as the host does."""

    inside: str
    outside: str


@dataclass(slots=True)
class _Batch:
    """Files for one directory, whose descriptor is closed when they are done."""

    directory: int
    files: list[tuple[int, bytes]]
    place: Place
    done: Future[list[bytes]] = field(default_factory=Future)


class Writers:
    """The threads that write files. Their errors are raised by whatever is called next.

    ``existing`` is that of :class:`~cimfs_ext.extractor.FileExtractor`. ``written`` is called by what waits: with the
    files of a batch that is done, the names of those among them that were skipped, and the bytes of content that all
    threads have written so far; meanwhile, ten times a second, with no files.
    """

    def __init__(
        self, image: ImageReader, jobs: int | None, cancel: CancellationToken, existing: str, written: Written
    ) -> None:
        self._cancel = cancel
        self._written = written
        self._extractor = FileExtractor(image, existing)
        self._most_threads = jobs if jobs is not None else min(available_cpus(), _MAX_THREADS)
        self._threads: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._pending: deque[_Batch] = deque()

    def __enter__(self) -> Writers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._extractor.stop()
        for batch in self._pending:
            if batch.done.cancel():
                beneath.close(batch.directory)
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, directory: int, files: list[tuple[int, bytes]], place: Place) -> None:
        """Write files into an open directory; returns before they are there."""
        self._cancel.raise_if_cancelled()
        if len(self._pending) >= _BATCHES_AHEAD:
            self._wait()
        batch = _Batch(beneath.duplicate(directory), files, place)
        self._pending.append(batch)
        self._start_thread()
        if self._threads:
            self._queue.put(batch)
        else:
            self._do(batch)

    def finish(self) -> None:
        """Wait for all that was submitted."""
        while self._pending:
            self._wait()

    def _wait(self) -> None:
        first = self._pending[0].done
        while not first.done():
            self._cancel.raise_if_cancelled()
            self._written([], [], self._extractor.written)
            wait([first], _LONGEST_WAIT)
        batch = self._pending.popleft()
        self._written(batch.files, first.result(), self._extractor.written)

    def _start_thread(self) -> None:
        """One more, as long as there are too few. Where the system has none left, the caller's own does the work."""
        if len(self._threads) >= self._most_threads:
            return
        thread = threading.Thread(target=self._work, name="cimlayer-extract", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._most_threads = len(self._threads)
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            self._do(batch)

    def _do(self, batch: _Batch) -> None:
        if not batch.done.set_running_or_notify_cancel():
            return
        try:
            skipped = self._write(batch)
        except BaseException as error:
            batch.done.set_exception(error)
        else:
            batch.done.set_result(skipped)

    def _write(self, batch: _Batch) -> list[bytes]:
        place = batch.place
        try:
            return self._extractor.write(batch.directory, batch.files)
        except ImageError as error:
            error.filename = f"{place.inside}\\{error.filename}" if place.inside else error.filename
            raise
        except OSError as error:
            error.filename = f"{place.outside}{os.sep}{error.filename}"
            raise
        finally:
            beneath.close(batch.directory)
