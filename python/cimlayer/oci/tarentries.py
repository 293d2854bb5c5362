"""Entries of an image as entries of a layer tar, with the PAX records of backup-stream.md."""

from __future__ import annotations

import base64
import re
import tarfile
from typing import BinaryIO

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken
from cimlayer.formats.extattributes import ExtendedAttribute, parse_extended_attributes
from cimlayer.formats.fileinfo import FILE_ATTRIBUTE_NORMAL, pax_seconds, unix_nanoseconds
from cimlayer.formats.reparse import MOUNT_POINT, SYMBOLIC_LINK, ReparsePoint, from_native, parse_reparse_data
from cimlayer.image.entrynames import checked_streams
from cimlayer.limits import Usage

_PIECE = 1 << 20
_END = bytes(2 * tarfile.BLOCKSIZE)
_MODES = {tarfile.DIRTYPE: 0o755, tarfile.SYMTYPE: 0o777}
_ATTACHMENTS_KEPT = 4096
_DRIVE = re.compile("[A-Za-z]:")


class TarWriter:
    """Writes an uncompressed tar to a binary file. Paths are those of the image, with backslashes."""

    def __init__(self, image: ImageReader, file: BinaryIO, usage: Usage, cancel: CancellationToken) -> None:
        self._image = image
        self._usage = usage
        self._cancel = cancel
        self._file = file
        self._buffer = memoryview(bytearray(_PIECE))
        self._descriptors: dict[bytes, str] = {}
        self.file_bytes = 0  # sum of the sizes of the files, streams and links not counted

    def entry(self, path: str, entry: ImageEntry) -> None:
        """A file or directory with all that it has, its alternate streams behind it."""
        streams = checked_streams(self._image, path, entry)
        self._usage.add_streams(path, streams)
        info = tarfile.TarInfo(path)
        records = self._records(path, entry)
        info.pax_headers = records
        if entry.is_reparse_point:
            info.type = tarfile.SYMTYPE
            info.linkname = self._link_target(path, entry, records)
        elif entry.is_directory:
            info.type = tarfile.DIRTYPE
        else:
            info.size = entry.size
            self._usage.add_content(path, entry.size)
            self.file_bytes += entry.size
        self._header(info, entry)
        if info.isreg():
            self._content(entry, None, entry.size)
        for stream in streams:
            self._header(_regular(f"{path}:{stream.name}", stream.size), entry)
            self._content(entry, stream.name, stream.size)

    def hard_link(self, path: str, target: str) -> None:
        """One more name for what was written, or is in the parent, as ``target``."""
        info = tarfile.TarInfo(path)
        info.type = tarfile.LNKTYPE
        info.linkname = _slashed(target)
        self._header(info)

    def whiteout(self, path: str) -> None:
        """An empty file; the last component has its prefix already."""
        self._header(_regular(path, 0))

    def finish(self) -> None:
        """The end of the archive. The file stays open."""
        self._file.write(_END)

    def _header(self, info: tarfile.TarInfo, entry: ImageEntry | None = None) -> None:
        self._cancel.raise_if_cancelled()
        path = info.name
        info.name = _slashed(path)
        info.mode = _MODES.get(info.type, 0o644)
        if entry is not None:
            info.pax_headers = {**info.pax_headers, "mtime": pax_seconds(entry.last_write_time)}
            info.mtime = max(0, unix_nanoseconds(entry.last_write_time) // 1_000_000_000)
        try:
            self._file.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        except UnicodeEncodeError as error:
            raise FormatError("a name with half a surrogate pair, which a tar cannot carry", path) from error

    def _content(self, entry: ImageEntry, stream: str | None, size: int) -> None:
        if 0 < size <= _PIECE:
            self._file.write(self._image.read(entry, stream))
        elif size:
            with self._image.open(entry, stream) as content:
                while count := content.readinto(self._buffer):
                    self._cancel.raise_if_cancelled()
                    self._file.write(self._buffer[:count])
        self._file.write(bytes(-size % tarfile.BLOCKSIZE))

    def _records(self, path: str, entry: ImageEntry) -> dict[str, str]:
        records = {
            "MSWINDOWS.fileattr": str(entry.attributes or FILE_ATTRIBUTE_NORMAL),
            "LIBARCHIVE.creationtime": pax_seconds(entry.creation_time),
            "atime": pax_seconds(entry.last_access_time),
            "ctime": pax_seconds(entry.change_time),
        }
        if descriptor := self._image.security_descriptor(entry):
            records["MSWINDOWS.rawsd"] = self._descriptor(descriptor)
        for attribute in self._extended_attributes(path, entry):
            if not attribute.name.isascii() or "=" in attribute.name or attribute.flags:
                raise FormatError(f"a tar cannot carry the extended attribute {attribute.name!r}", path)
            records[f"MSWINDOWS.xattr.{attribute.name}"] = _base64(attribute.value)
        return records

    def _extended_attributes(self, path: str, entry: ImageEntry) -> list[ExtendedAttribute]:
        try:
            return parse_extended_attributes(self._image.extended_attributes(entry))
        except FormatError as error:
            raise FormatError(f"{error.what}: {error.reason}", path) from error

    def _descriptor(self, data: bytes) -> str:
        """Few descriptors serve many files."""
        text = self._descriptors.get(data)
        if text is None:
            text = _base64(data)
            if len(self._descriptors) < _ATTACHMENTS_KEPT:
                self._descriptors[data] = text
        return text

    def _link_target(self, path: str, entry: ImageEntry, records: dict[str, str]) -> str:
        try:
            point = parse_reparse_data(self._image.reparse_data(entry))
        except FormatError as error:
            raise FormatError(error.reason, path) from error
        if point.tag not in (SYMBOLIC_LINK, MOUNT_POINT):
            raise FormatError(f"a layer tar cannot carry this reparse point: {point.tag_name}", path)
        if not point.substitute_name or entry.size:
            raise FormatError("a link without a target, or with content of its own", path)
        target = _target(point)
        if target is None:
            raise FormatError(f"a layer tar cannot say where this link leads: {point.substitute_name!r}", path)
        if point.tag == MOUNT_POINT:
            records["MSWINDOWS.mountpoint"] = "1"
        return _slashed(target)


def _regular(path: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.size = size
    return info


def _slashed(path: str) -> str:
    return path.replace("\\", "/")


def _target(point: ReparsePoint) -> str | None:
    """The target of which an import makes this link: the name that it shows, unless that is not where it leads."""
    leads = (point.substitute_name or "").replace("/", "\\")
    for target in ((point.print_name or "").replace("/", "\\"), from_native(leads)):
        if _native(target) == leads and (point.tag == MOUNT_POINT or point.relative == (target == leads)):
            return target
    return None


def _native(target: str) -> str:
    r"""The substitute name that an import makes of a target (backup-stream.md, "Reparse buffer")."""
    if target.startswith("\\\\?\\"):
        return "\\??\\" + target[4:]
    if target.startswith("\\\\"):
        return "\\??\\UNC\\" + target[2:]
    return "\\??\\" + target if _DRIVE.match(target) else target


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
