"""The import of one layer as its callers see it: events for programs, lines for the log."""

from __future__ import annotations

import time

from cimlayer.events import (
    Event,
    LayerCommitting,
    LayerDone,
    LayerProgress,
    LayerReused,
    LayerStarted,
    LayerWarning,
    ProgressCallback,
)
from cimlayer.tracing import DEBUG, INFO, WARNING, log


class LayerTask:
    """Tells how a layer's import goes; ``name``, ``number``, ``count``, ``digest`` and ``size`` as in LayerStarted."""

    __slots__ = ("_began", "_callback", "_count", "_entries", "_number", "_size", "digest", "name", "seconds")

    def __init__(
        self,
        name: str,
        number: int,
        count: int,
        digest: str | None,
        size: int | None,
        callback: ProgressCallback | None,
    ) -> None:
        self.name, self._number, self._count, self._size = name, number, count, size
        self._callback = callback
        self._began = 0.0
        self._entries = 0
        self.digest = digest
        self.seconds = 0.0

    def started(self) -> None:
        """The import begins."""
        self._began = time.monotonic()
        log(INFO, "layer %s: import started", self.name)
        self._tell(LayerStarted(self.name, self.digest, self._number, self._count, self._size))

    def read(self, position: int) -> None:
        """So many bytes of the source are in the image."""
        if self._callback is not None:
            self._callback(LayerProgress(self.name, position))

    def committing(self, entries: int) -> None:
        """The tar has ended."""
        self._entries = entries
        log(DEBUG, "layer %s: tar taken after %.3f s", self.name, time.monotonic() - self._began)
        self._tell(LayerCommitting(self.name, entries))

    def warn(self, text: str) -> None:
        """Something was not as it should be."""
        log(WARNING, "layer %s: %s", self.name, text)
        self._tell(LayerWarning(self.name, text))

    def done(self, file_bytes: int, utility_vm: str | None = None) -> None:
        """The layer is there."""
        self.seconds = time.monotonic() - self._began
        log(INFO, "layer %s: %d bytes of files in %.3f s", self.name, file_bytes, self.seconds)
        try:
            self._tell(LayerDone(self.name, self._entries, file_bytes, self.seconds, utility_vm))
        except Exception:
            if self._number < self._count:
                raise  # there is more to be imported, and the caller does not want it
            log(WARNING, "layer %s is there; its progress callback failed", self.name, exc_info=True)

    def reused(self, file_bytes: int) -> None:
        """The layer was there already."""
        log(INFO, "layer %s: reused", self.name)
        self._tell(LayerReused(self.name, self.digest, self._number, self._count, file_bytes))

    def _tell(self, event: Event) -> None:
        if self._callback is not None:
            self._callback(event)
