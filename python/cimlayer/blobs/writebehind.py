"""Writing in a thread what is made meanwhile."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import Any, Protocol

from cimlayer.host.cpus import available_cpus


class Output(Protocol):
    """Where bytes go."""

    def write(self, data: Any, /) -> object:
        """Take all of them."""


class WriteBehind:
    """Writes one piece to an output while the next one is made.

    A piece must stay as it is until the next call returns. What the output raises is raised by the next call, or at
    the end of the ``with`` block. With one CPU, or if the system has no thread left, all is written at once.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._pieces: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._writing = False

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
        try:
            if error is None:
                self._finish_piece()
        finally:
            if self._thread is not None:
                self._pieces.put(None)
                self._thread.join()

    def write(self, piece: memoryview) -> None:
        """Begin to write a piece."""
        if self._thread is None:
            self._output.write(piece)
            return
        self._finish_piece()
        self._pieces.put(piece)
        self._writing = True

    def _finish_piece(self) -> None:
        if self._writing:
            outcome = self._outcomes.get()
            self._writing = False
            if outcome is not None:
                raise outcome

    def _write_all(self) -> None:
        while (piece := self._pieces.get()) is not None:
            try:
                self._output.write(piece)
            except BaseException as error:
                self._outcomes.put(error)
            else:
                self._outcomes.put(None)
