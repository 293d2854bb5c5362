"""The threads that write the files of an extraction."""

from __future__ import annotations

import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType

from cimfs_ext.reader import ImageReader
from cimlayer.errors import ImageError
from cimlayer.events import CancellationToken
from cimlayer.host.cpus import available_cpus

if sys.platform != "win32":
    from cimfs_ext.extractor import FileExtractor

_BATCHES_AHEAD = 32  # each holds a directory open
_MAX_THREADS = 4
_LONGEST_WAIT = 0.1  # seconds until a cancelled extraction is noticed


@dataclass(slots=True)
class Place:
    """A directory, as the image calls it and as the host does."""

    inside: str
    outside: str


class Writers:
    """The threads that write files. Their errors are raised by whatever is called next."""

    def __init__(self, image: ImageReader, jobs: int | None, cancel: CancellationToken) -> None:
        self._cancel = cancel
        self._extractor = FileExtractor(image)
        threads = jobs if jobs is not None else min(available_cpus(), _MAX_THREADS)
        self._pool = ThreadPoolExecutor(max(threads, 1), thread_name_prefix="cimlayer-extract")
        self._pending: deque[tuple[Future[None], int]] = deque()

    def __enter__(self) -> Writers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._extractor.stop()
        for future, fd in self._pending:
            if future.cancel():
                os.close(fd)
        self._pool.shutdown()

    def submit(self, directory: int, files: list[tuple[int, bytes]], place: Place) -> None:
        """Write files into an open directory; returns before they are there."""
        self._cancel.raise_if_cancelled()
        if len(self._pending) >= _BATCHES_AHEAD:
            self._wait()
        fd = os.dup(directory)
        self._pending.append((self._pool.submit(self._write, fd, files, place), fd))

    def finish(self) -> None:
        """Wait for all that was submitted."""
        while self._pending:
            self._wait()

    def _wait(self) -> None:
        while not self._pending[0][0].done():
            self._cancel.raise_if_cancelled()
            wait([self._pending[0][0]], _LONGEST_WAIT)
        self._pending.popleft()[0].result()

    def _write(self, fd: int, files: list[tuple[int, bytes]], place: Place) -> None:
        try:
            self._extractor.write(fd, files)
        except ImageError as error:
            error.filename = f"{place.inside}\\{error.filename}" if place.inside else error.filename
            raise
        except OSError as error:
            error.filename = f"{place.outside}/{error.filename}"
            raise
        finally:
            os.close(fd)
