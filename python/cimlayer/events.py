"""What an import tells while it works, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cimlayer.errors import OperationCancelledError


@dataclass(slots=True, frozen=True)
class LayerStarted:
    """A layer's import begins. ``size`` counts the bytes that will be read, compressed as they are; None: unknown.

    ``layer`` is the name of the layer directory, ``digest`` the blob's, as far as one was given; layer ``number`` of
    ``count`` counts from 1.
    """

    layer: str
    digest: str | None
    number: int
    count: int
    size: int | None


@dataclass(slots=True, frozen=True)
class LayerProgress:
    """So many bytes of the layer's source have become part of the image; at most one event for each 512 KiB of tar."""

    layer: str
    bytes_read: int


@dataclass(slots=True, frozen=True)
class LayerCommitting:
    """The whole tar, of so many entries, was taken and verified; hives, disks and the image's tables are written."""

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
    """The layer was there already."""

    layer: str
    digest: str | None
    number: int
    count: int
    bytes: int


Event = LayerStarted | LayerProgress | LayerCommitting | LayerDone | LayerReused | LayerWarning
ProgressCallback = Callable[[Event], object]

_NAMES = {
    LayerStarted: "layer-started",
    LayerProgress: "layer-progress",
    LayerCommitting: "layer-committing",
    LayerDone: "layer-done",
    LayerReused: "layer-reused",
    LayerWarning: "layer-warning",
}


def event_record(event: Event) -> dict[str, Any]:
    """An event as a JSON object: its kind as ``event``, and its fields."""
    return {"event": _NAMES[type(event)], **asdict(event)}


class CancellationToken:
    """Stops an operation from another thread or from a signal handler; once cancelled it stays so. Thread safe.

    A token with a ``parent`` is cancelled with it, and can be cancelled alone.
    """

    __slots__ = ("_cancelled", "_parent")

    def __init__(self, parent: CancellationToken | None = None) -> None:
        self._cancelled = False  # a plain flag: a signal handler must not wait for a lock
        self._parent = parent

    def cancel(self) -> None:
        """Ask the operation to stop: it raises OperationCancelledError soon, and leaves nothing half-made."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked."""
        return self._cancelled or (self._parent is not None and self._parent.cancelled)

    def raise_if_cancelled(self) -> None:
        """OperationCancelledError if somebody has asked."""
        if self.cancelled:
            raise OperationCancelledError("cancelled")
