"""What an import reports while it runs, and how it is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cimlayer.errors import OperationCancelledError


@dataclass(slots=True, frozen=True)
class LayerStarted:
    """The import of a layer starts. ``size`` is the number of (compressed) bytes to read, None if unknown.

    ``layer`` is the name of the layer directory, ``digest`` that of the blob, if known; ``number`` of ``count`` counts
    layers from 1.
    """

    layer: str
    digest: str | None
    number: int
    count: int
    size: int | None


@dataclass(slots=True, frozen=True)
class LayerProgress:
    """That many bytes of the source have been processed; at most one event per 512 KiB of tar."""

    layer: str
    bytes_read: int


@dataclass(slots=True, frozen=True)
class LayerCommitting:
    """The whole tar, with that many entries, was read and verified; hives, disks and tables are written."""

    layer: str
    entries: int


@dataclass(slots=True, frozen=True)
class LayerDone:
    """The layer is there. ``bytes`` is the sum of its files' sizes, ``seconds`` the time since it was started.

    ``utility_vm`` is ``processed`` or ``kept``, None if the layer brought none.
    """

    layer: str
    entries: int
    bytes: int
    seconds: float
    utility_vm: str | None = None


@dataclass(slots=True, frozen=True)
class LayerWarning:
    """Something in the layer was not as it should be, and what was done about it; the import goes on."""

    layer: str
    text: str


@dataclass(slots=True, frozen=True)
class LayerReused:
    """The layer already existed."""

    layer: str
    digest: str | None
    number: int
    count: int
    bytes: int


@dataclass(slots=True, frozen=True)
class FilesProgress:
    """So many entries, with that many bytes of content, have been copied out of an image or into one.

    At most ten events a second, and one when all are.
    """

    image: str
    files: int
    bytes: int


Event = LayerStarted | LayerProgress | LayerCommitting | LayerDone | LayerReused | LayerWarning | FilesProgress
ProgressCallback = Callable[[Event], object]

_NAMES = {
    LayerStarted: "layer-started",
    LayerProgress: "layer-progress",
    LayerCommitting: "layer-committing",
    LayerDone: "layer-done",
    LayerReused: "layer-reused",
    LayerWarning: "layer-warning",
    FilesProgress: "files-progress",
}


def event_record(event: Event) -> dict[str, Any]:
    """An event as a JSON object: its kind as ``event``, and its fields."""
    return {"event": _NAMES[type(event)], **asdict(event)}


class CancellationToken:
    """Cancels an operation from another thread or from a signal handler. Thread safe; there is no way back.

    A token with a ``parent`` is cancelled together with it, or alone.
    """

    __slots__ = ("_cancelled", "_parent")

    def __init__(self, parent: CancellationToken | None = None) -> None:
        self._cancelled = False  # a plain flag: a signal handler must not wait for a lock
        self._parent = parent

    def __repr__(self) -> str:
        return f"<CancellationToken {'cancelled' if self.cancelled else 'not cancelled'}>"

    def cancel(self) -> None:
        """Ask the operation to stop: it soon raises OperationCancelledError, and leaves nothing half-made."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether it has been cancelled."""
        return self._cancelled or (self._parent is not None and self._parent.cancelled)

    def raise_if_cancelled(self) -> None:
        """Raise OperationCancelledError if it has been cancelled."""
        if self.cancelled:
            raise OperationCancelledError("cancelled")
