"""Names that stand in an image although no file of Windows can have them: somebody forged it.

As a part of a path, on the host or in a tar, they would mean something else. Names with a separator or NUL in them are
refused by the reader itself.
"""

from __future__ import annotations

import errno

from cimfs_ext.entries import ImageEntry, StreamEntry
from cimfs_ext.reader import ImageReader
from cimlayer.errors import CorruptImageError


def check_name(name: str, path: str) -> None:
    """CorruptImageError, which names the path inside the image, if no file or directory can have this name."""
    if name in (".", "..") or ":" in name:
        raise CorruptImageError(errno.EBADMSG, "a name that no file of Windows can have", path)


def checked_streams(image: ImageReader, path: str, entry: ImageEntry) -> list[StreamEntry]:
    """The alternate streams of an entry; CorruptImageError if none can have a name that one of them has."""
    streams: list[StreamEntry] = image.streams(entry)
    for stream in streams:
        if ":" in stream.name:
            message = "a name that no stream of Windows can have"
            raise CorruptImageError(errno.EBADMSG, message, f"{path}:{stream.name}")
    return streams
