"""The exceptions of cimlayer, each an ``OSError`` or a ``ValueError`` where it is one."""

from __future__ import annotations

from cimfs_ext.errors import (
    CorruptHiveError,
    CorruptImageError,
    DirtyHiveWarning,
    FormatError,
    ImageBusyError,
    ImageError,
    ImageExistsError,
    ImageFullError,
    ImagePermissionError,
    InvalidCallError,
    LimitError,
    PathNotFoundError,
    StreamEndError,
    UnsupportedCallError,
)

__all__ = [
    "CorruptHiveError",
    "CorruptImageError",
    "DigestMismatchError",
    "DirtyHiveWarning",
    "FormatError",
    "ImageBusyError",
    "ImageError",
    "ImageExistsError",
    "ImageFullError",
    "ImagePermissionError",
    "InvalidCallError",
    "LimitError",
    "OperationCancelledError",
    "PathNotFoundError",
    "StreamEndError",
    "UnsupportedCallError",
]


class DigestMismatchError(FormatError):
    """Bytes that are not those that a digest or a size promised; ``expected`` and ``actual`` say how they differ."""

    def __init__(self, what: str, expected: str, actual: str) -> None:
        """``what`` names the blob, or the layer, whose bytes are wrong."""
        super().__init__(f"expected {expected}, but it has {actual}", what)
        self.expected = expected
        self.actual = actual


class OperationCancelledError(Exception):
    """A :class:`~cimlayer.events.CancellationToken` stopped the operation; nothing half-made is left."""
