"""Attributes and times of files, as Windows counts them."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

FILE_ATTRIBUTE_READONLY = 0x1
FILE_ATTRIBUTE_SYSTEM = 0x4
FILE_ATTRIBUTE_DIRECTORY = 0x10
FILE_ATTRIBUTE_ARCHIVE = 0x20
FILE_ATTRIBUTE_NORMAL = 0x80
FILE_ATTRIBUTE_SPARSE_FILE = 0x200
FILE_ATTRIBUTE_REPARSE_POINT = 0x400

# The letters are those of PowerShell's Mode column, and P for sparse as attrib has it.
ATTRIBUTES = (
    (0x10, "d", "directory"),
    (0x20, "a", "archive"),
    (0x01, "r", "read-only"),
    (0x02, "h", "hidden"),
    (0x04, "s", "system"),
    (0x400, "l", "reparse-point"),
    (0x200, "p", "sparse"),
)

_UNIX_EPOCH = 116_444_736_000_000_000
_TICKS = 10_000_000


@dataclass(slots=True, frozen=True)
class FileBasicInfo:
    """FILE_BASIC_INFO: FILETIMEs (units of 100 ns since 1601-01-01 UTC) and FILE_ATTRIBUTE bits."""

    creation_time: int = 0
    last_access_time: int = 0
    last_write_time: int = 0
    change_time: int = 0
    file_attributes: int = 0

    @classmethod
    def at(cls, filetime: int, file_attributes: int = FILE_ATTRIBUTE_NORMAL) -> FileBasicInfo:
        """One time for all four, as for files made here."""
        return cls(filetime, filetime, filetime, filetime, file_attributes)

    @property
    def is_directory(self) -> bool:
        """Whether the attributes say that this is a directory."""
        return bool(self.file_attributes & FILE_ATTRIBUTE_DIRECTORY)


@dataclass(slots=True, frozen=True)
class Attachments:
    """What a file may have besides (empty: it has none): a self-relative descriptor, an EA and a reparse buffer."""

    security_descriptor: bytes = b""
    extended_attributes: bytes = b""
    reparse_data: bytes = b""


NO_ATTACHMENTS = Attachments()


def filetime_from_unix(seconds: float) -> int:
    """A FILETIME from seconds since 1970."""
    return _UNIX_EPOCH + int(seconds * _TICKS)


def filetime_from_ns(nanoseconds: int) -> int:
    """A FILETIME from nanoseconds since 1970, truncated to 100 ns."""
    return _UNIX_EPOCH + nanoseconds // 100


def unix_nanoseconds(filetime: int) -> int:
    """Nanoseconds since 1970 from a FILETIME."""
    return (filetime - _UNIX_EPOCH) * 100


def attribute_letters(attributes: int) -> str:
    """Attributes as a column of letters."""
    bits = int(attributes)  # & of an IntFlag takes long
    return "".join(letter if bits & bit else "-" for bit, letter, _ in ATTRIBUTES)


def attribute_names(attributes: int) -> list[str]:
    """Attributes in words."""
    bits = int(attributes)  # & of an IntFlag takes long
    return [name for bit, _, name in ATTRIBUTES if bits & bit]


def filetime_from_text(text: str) -> int:
    """A FILETIME from ``2024-05-31``, ``2024-05-31T12:00`` or RFC 3339 with up to seven decimals, all in UTC.

    ValueError for anything else, and for a time before 1601.
    """
    from datetime import datetime, timedelta  # noqa: PLC0415  which take their time to load

    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,7}))?)?)?Z?", text, re.ASCII)
    if match is None:
        raise ValueError(f"not a time such as 2024-05-31 or 2024-05-31T12:00:00Z: {text!r}")
    day, minute, second, decimals = match.groups(default="")
    passed = datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}") - datetime(1601, 1, 1)
    if passed < timedelta():
        raise ValueError(f"before 1601: {text!r}")
    return (passed.days * 86_400 + passed.seconds) * _TICKS + int(decimals.ljust(7, "0"))


def creation_time(reproducible: bool) -> int:
    """The FILETIME of what is made here: now, or for a reproducible image SOURCE_DATE_EPOCH, else 1970.

    ValueError if the variable is set to anything but a number of seconds that a FILETIME can have.
    Source of the variable: https://reproducible-builds.org/specs/source-date-epoch/
    """
    if not reproducible:
        return _UNIX_EPOCH + time.time_ns() // 100
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not re.fullmatch("[0-9]{1,11}", seconds):  # until the year 5138
        raise ValueError(f"SOURCE_DATE_EPOCH is not a number of seconds since 1970: {seconds[:40]!r}")
    return filetime_from_unix(int(seconds))
