"""Entries of other archives as those of a tar, so that there is one way into an image."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field
from typing import Literal

from cimfs_ext.filetimes import pax_seconds
from cimfs_ext.tarheader import tar_header
from cimlayer.errors import FormatError

END = bytes(2 * tarfile.BLOCKSIZE)
_TYPES = {"file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE}


@dataclass(slots=True)
class TarEntry:
    """One entry. ``path`` has slashes, as ``target``, where a link leads; times are FILETIMEs, ``size`` is in bytes."""

    path: str
    kind: Literal["file", "directory", "link", "hard link"] = "file"
    size: int = 0
    target: str = ""
    last_write_time: int | None = None
    last_access_time: int | None = None
    creation_time: int | None = None
    records: dict[str, str] = field(default_factory=dict)

    def header(self) -> bytes:
        """The header with its PAX records; FormatError for half a surrogate pair that came from no archive."""
        info = tarfile.TarInfo(_bytes_as_text(self.path))
        info.type, info.size, info.linkname = _TYPES[self.kind], self.size, _bytes_as_text(self.target)
        times = {
            "mtime": self.last_write_time,
            "ctime": self.last_write_time,
            "atime": self.last_access_time,
            "LIBARCHIVE.creationtime": self.creation_time,
        }
        info.pax_headers = {name: pax_seconds(time) for name, time in times.items() if time is not None} | self.records
        try:
            return tar_header(info)
        except (UnicodeEncodeError, ValueError) as error:
            raise FormatError(f"an entry that cannot be taken: {error}", self.path) from error


def padding(size: int) -> bytes:
    """What follows so many bytes of content."""
    return bytes(-size % tarfile.BLOCKSIZE)


def _bytes_as_text(name: str) -> str:
    """A name whose half surrogate pairs tarfile writes as bytes."""
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
