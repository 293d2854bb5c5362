"""Writing in a thread what is made meanwhile."""

from __future__ import annotations

import queue
import threading
from types import TracebackType

from cimfs_ext.cpus import available_cpus
from cimlayer.blobs.outputs import Output

PIECES_BEHIND = 7  # enough for neither side to wait when the other one takes a little longer


class WriteBehind:
    """Writes pieces to an output in a thread, in order, while the next ones are made.

    A piece must stay as it is until ``PIECES_BEHIND`` more have been given. What the output raises is raised by one of
    the next calls, or at the end of the ``with`` block. With one CPU, or if the system has no thread left, each is
    written at once.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._pieces: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(PIECES_BEHIND)
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> WriteBehind:
        if available_cpus() > 1:
            thread = threading.Thread(target=self._write_all, name="cimlayer-write", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has none left
                return self
            self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._error = self._error or error  # either ends the writing
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def write(self, piece: memoryview) -> None:
        """Let a piece be written."""
        if self._thread is None:
            self._output.write(piece)
            return
        self._room.acquire()
        if self._error is not None:
            raise self._error
        self._pieces.put(piece)

    def _write_all(self) -> None:
        while (piece := self._pieces.get()) is not None:
            try:
                if self._error is None:
                    self._output.write(piece)
            except BaseException as error:
                self._error = error
            self._room.release()
