"""How far a copy of files has come."""

from __future__ import annotations

import time

from cimlayer.events import CancellationToken, FilesProgress, ProgressCallback

_SECONDS_BETWEEN_EVENTS = 0.1


class Meter:
    """Calls ``progress`` ten times a second at most, and says at each step whether the copy was cancelled."""

    def __init__(self, image: str, progress: ProgressCallback | None, cancel: CancellationToken) -> None:
        self._image = image
        self._progress = progress
        self._cancel = cancel
        self._next = 0.0
        self._last = (0, 0)

    def step(self, files: int, size: int) -> None:
        """So many entries and bytes of content are done by now."""
        self._cancel.raise_if_cancelled()
        if self._progress is None:
            return
        self._last = (files, size)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS_BETWEEN_EVENTS
            self._progress(FilesProgress(self._image, files, size))

    def finish(self) -> None:
        """All is done: say so in any case."""
        if self._progress is not None:
            self._progress(FilesProgress(self._image, *self._last))
