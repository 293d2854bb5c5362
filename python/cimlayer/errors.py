"""The exceptions of cimlayer, each an ``OSError`` or a ``ValueError`` where it is one."""

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
    PathNotFoundError,
    StreamEndError,
    UnsupportedCallError,
)

__all__ = [
    "CorruptHiveError",
    "CorruptImageError",
    "DirtyHiveWarning",
    "FormatError",
    "ImageBusyError",
    "ImageError",
    "ImageExistsError",
    "ImageFullError",
    "ImagePermissionError",
    "InvalidCallError",
    "PathNotFoundError",
    "StreamEndError",
    "UnsupportedCallError",
]
