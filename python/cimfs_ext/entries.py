"""What a reader says of files in an image."""

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

FILE_ATTRIBUTE_DIRECTORY = 0x10
FILE_ATTRIBUTE_REPARSE_POINT = 0x400


class FileAttributes(IntFlag):
    """The FILE_ATTRIBUTE bits ([MS-FSCC] 2.6). An image keeps the first seven."""

    READONLY = 0x1
    HIDDEN = 0x2
    SYSTEM = 0x4
    DIRECTORY = 0x10
    ARCHIVE = 0x20
    SPARSE_FILE = 0x200
    REPARSE_POINT = 0x400
    NORMAL = 0x80
    TEMPORARY = 0x100
    COMPRESSED = 0x800
    OFFLINE = 0x1000
    NOT_CONTENT_INDEXED = 0x2000
    ENCRYPTED = 0x4000


FileAttributes.__module__ = "cimlayer"


def filetime_to_datetime(filetime: int) -> "datetime | None":
    """A FILETIME (units of 100 ns since 1601-01-01 UTC; [MS-DTYP] 2.3.3) as an aware datetime in UTC.

    Truncated to microseconds, which is all that a datetime has. None where it has no such time: before the year 1601
    and after 9999.
    """
    from datetime import datetime, timedelta, timezone  # noqa: PLC0415  which take their time to load

    if filetime < 0:
        return None
    try:
        return datetime(1601, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=filetime // 10)
    except OverflowError:
        return None


@dataclass(slots=True, frozen=True)
class ImageEntry:
    """A file or directory under one of its names.

    Times are FILETIMEs: units of 100 ns since 1601-01-01 UTC. ``size`` is in bytes, 0 for a directory. Files with
    equal ``file_id`` are hard links of each other. ``attributes`` are those that the format keeps (docs/format.md,
    "File record").
    """

    __module__ = "cimlayer"

    name: str
    file_id: int
    attributes: FileAttributes
    size: int
    creation_time: int
    last_write_time: int
    change_time: int
    last_access_time: int
    reparse_tag: int
    parent_id: int
    sparse: bool

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory, a reparse point or not."""
        return int(self.attributes) & FILE_ATTRIBUTE_DIRECTORY != 0  # & of an IntFlag takes ten times as long

    @property
    def is_reparse_point(self) -> bool:
        """Whether reparse data is attached: a symbolic link, a mount point, ..."""
        return int(self.attributes) & FILE_ATTRIBUTE_REPARSE_POINT != 0

    @property
    def creation_datetime(self) -> "datetime | None":
        """``creation_time`` as an aware datetime; this and the others as :func:`~cimlayer.filetime_to_datetime`."""
        return filetime_to_datetime(self.creation_time)

    @property
    def last_write_datetime(self) -> "datetime | None":
        """``last_write_time``, when the content was last written, as an aware datetime."""
        return filetime_to_datetime(self.last_write_time)

    @property
    def change_datetime(self) -> "datetime | None":
        """``change_time``, when the content or the metadata was last changed, as an aware datetime."""
        return filetime_to_datetime(self.change_time)

    @property
    def last_access_datetime(self) -> "datetime | None":
        """``last_access_time`` as an aware datetime."""
        return filetime_to_datetime(self.last_access_time)
