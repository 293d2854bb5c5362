"""A ZIP, or an MSIX or APPX package, which is one, as a tar."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import BinaryIO

from cimlayer.errors import FormatError, LimitError
from cimlayer.formats.fileinfo import (
    FILE_ATTRIBUTE_ARCHIVE,
    FILE_ATTRIBUTE_READONLY,
    filetime_from_ns,
    filetime_from_unix,
)
from cimlayer.formats.msix import (
    BLOCK_MAP,
    BUNDLE_MANIFEST,
    LARGEST_MANIFEST,
    MANIFEST,
    decoded_name,
    package_full_name,
)
from cimlayer.image.tarpieces import END, TarEntry, padding
from cimlayer.limits import Limits

MAGICS = (b"PK\3\4", b"PK\5\6")

_PIECE = 1 << 20
_LONGEST_TARGET = 32_767 * 3  # bytes of UTF-8
_ENCRYPTED = 1
_UNIX, _FAT, _NTFS = 3, 0, 10  # systems of central directory entries (APPNOTE.TXT, 4.4.2)
_DOS_ATTRIBUTES = 0x27  # of those that an image keeps
_NTFS_TIMES, _UNIX_TIMES = 0x000A, 0x5455  # extra fields (APPNOTE.TXT, 4.5.5; Info-ZIP, extrafld.txt)


def zip_as_tar(file: BinaryIO, name: str, limits: Limits) -> Iterator[bytes]:
    """The entries of a ZIP; those of a package lie in a directory that is called as the package is.

    FormatError names the entry that cannot be taken, LimitError is for more than ``limits`` before it is read. Entries
    have their DOS attributes, or are read-only where nobody may write, and the times of NTFS or Unix if those are
    there; otherwise the time of MS-DOS, which has no zone, is taken for UTC.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield from _entries(archive, file.seek(0, os.SEEK_END), name, limits)
    except zipfile.BadZipFile as error:
        raise FormatError(f"a malformed ZIP: {error}", name) from error
    yield END


def _entries(archive: zipfile.ZipFile, compressed: int, name: str, limits: Limits) -> Iterator[bytes]:
    members = archive.infolist()
    if len(members) > limits.files:
        raise LimitError("files", limits.files)
    folder = _package_folder(archive, name)
    size = 0
    for member in sorted(members, key=lambda member: member.filename):
        size += member.file_size
        limits.check_tar(size, compressed)
        path = member.filename.replace("\\", "/")  # as some programs of Windows write it
        if folder:
            path = f"{folder}/{decoded_name(path)}"
        try:
            yield from _entry(archive, member, path)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise FormatError(f"its content cannot be read: {error}", member.filename) from error
        except (NotImplementedError, RuntimeError) as error:
            raise FormatError(f"its content cannot be read: {error}", member.filename) from error


def _package_folder(archive: zipfile.ZipFile, name: str) -> str:
    """The full name of a package, empty for another ZIP."""
    names = set(archive.namelist())
    if BUNDLE_MANIFEST in names:
        raise FormatError("a bundle of packages: unpack it, and take the package that you need", name)
    if not {MANIFEST, BLOCK_MAP} <= names:
        return ""
    if archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
        raise FormatError(f"larger than {LARGEST_MANIFEST >> 20} MiB", MANIFEST)
    return package_full_name(archive.read(MANIFEST))


def _entry(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str) -> Iterator[bytes]:
    if member.flag_bits & _ENCRYPTED:
        raise FormatError("it is encrypted", member.filename)
    mode = member.external_attr >> 16 if member.create_system == _UNIX else 0
    entry = TarEntry(path, size=member.file_size, records=_attributes(member, mode))
    entry.last_write_time, entry.last_access_time, entry.creation_time = _times(member)
    if member.is_dir() or stat.S_ISDIR(mode):
        entry.kind, entry.size = "directory", 0
        yield entry.header()
    elif stat.S_ISLNK(mode):
        if member.file_size > _LONGEST_TARGET:
            raise FormatError("a symbolic link that is too long", member.filename)
        entry.kind, entry.size = "link", 0
        try:
            entry.target = archive.read(member).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError("a link target that is not UTF-8", member.filename) from error
        yield entry.header()
    elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
        yield entry.header()
        with archive.open(member) as content:
            left = member.file_size
            while piece := content.read(min(_PIECE, left)):
                left -= len(piece)
                yield piece
            if left:
                raise FormatError("its content is shorter than its header says", member.filename)
        yield padding(member.file_size)
    else:
        raise FormatError("neither file nor directory nor symbolic link", member.filename)


def _attributes(member: zipfile.ZipInfo, mode: int) -> dict[str, str]:
    if member.create_system in (_FAT, _NTFS) and member.external_attr & _DOS_ATTRIBUTES:
        return {"MSWINDOWS.fileattr": str(member.external_attr & _DOS_ATTRIBUTES)}
    if stat.S_ISREG(mode) and not mode & 0o222:
        return {"MSWINDOWS.fileattr": str(FILE_ATTRIBUTE_ARCHIVE | FILE_ATTRIBUTE_READONLY)}
    return {}


def _times(member: zipfile.ZipInfo) -> tuple[int | None, int | None, int | None]:
    """Last write, last access and creation."""
    fields = dict(_extra_fields(member.extra))
    ntfs = fields.get(_NTFS_TIMES, b"")
    if len(ntfs) >= 32 and ntfs[4:8] == b"\1\0\x18\0":  # attribute 1, of 24 bytes
        write, access, creation = struct.unpack_from("<3Q", ntfs, 8)
        return write, access, creation
    unix = fields.get(_UNIX_TIMES, b"")
    if len(unix) >= 5 and unix[0] & 1:
        return filetime_from_ns(struct.unpack_from("<i", unix, 1)[0] * 10**9), None, None
    try:
        return filetime_from_unix(datetime(*member.date_time, tzinfo=timezone.utc).timestamp()), None, None
    except ValueError:  # month 0, as in archives without times
        return None, None, None


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        yield kind, extra[at + 4 : at + 4 + size]
        at += 4 + size
