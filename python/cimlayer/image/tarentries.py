"""Entries of a CIM as entries of a tar, with the PAX records of go-winio's backuptar/tar.go."""

from __future__ import annotations

import tarfile
from typing import BinaryIO

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.errors import FormatError
from cimlayer.formats.fileinfo import pax_seconds, unix_nanoseconds
from cimlayer.formats.tarheader import tar_header
from cimlayer.host.memory import whole_pages
from cimlayer.image.entrynames import checked_streams
from cimlayer.image.kinds import Records, value_kinds
from cimlayer.image.meter import Meter
from cimlayer.limits import Usage

_PIECE = 1 << 20
_END = bytes(2 * tarfile.BLOCKSIZE)
_MODES = {tarfile.DIRTYPE: 0o755, tarfile.SYMTYPE: 0o777}


class TarWriter:
    """Writes an uncompressed tar to a binary file. Paths are those of the image, with backslashes."""

    def __init__(self, image: ImageReader, file: BinaryIO, usage: Usage, meter: Meter) -> None:
        self._image = image
        self._usage = usage
        self._meter = meter
        self._entries = 0
        self._content_bytes = 0
        self._file = file
        self._buffer = memoryview(whole_pages(_PIECE))  # what is written next
        self._filled = 0
        self._kinds = value_kinds()
        self.file_bytes = 0  # sum of the sizes of the files, streams and links not counted

    def entry(self, path: str, entry: ImageEntry) -> None:
        """A file or directory with all that it has, its alternate streams behind it."""
        streams = checked_streams(self._image, path, entry)
        self._usage.add_streams(path, streams)
        info = tarfile.TarInfo(path)
        if entry.is_directory:
            info.type = tarfile.DIRTYPE
        info.pax_headers = self.records(info, entry)
        if info.isreg():
            info.size = entry.size
            self._usage.add_content(path, entry.size)
            self.file_bytes += entry.size
        self.put(info, entry, None)
        for stream in streams:
            self.put(_regular(f"{path}:{stream.name}", stream.size), entry, stream.name)

    def records(self, info: tarfile.TarInfo, entry: ImageEntry) -> Records:
        """What the header cannot say of an entry; may change the header too."""
        records: Records = {}
        for kind in self._kinds:
            records |= kind.export(info, entry, kind.value(self._image, entry))
        return records

    def put(self, info: tarfile.TarInfo, entry: ImageEntry, stream: str | None) -> None:
        """A header and what follows it: the content of the file, or of an alternate stream."""
        self._header(info, entry)
        if info.isreg():
            self._content(entry, stream, info.size)

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
        self.write(_END)
        self._flush()
        self._meter.step(self._entries, self._content_bytes)
        self._meter.finish()

    def _header(self, info: tarfile.TarInfo, entry: ImageEntry | None = None) -> None:
        self._meter.step(self._entries, self._content_bytes)
        self._entries += 1
        path = info.name
        info.name = _slashed(path)
        info.mode = _MODES.get(info.type, 0o644)
        if entry is not None:
            info.pax_headers = {**info.pax_headers, "mtime": pax_seconds(entry.last_write_time)}
            info.mtime = max(0, unix_nanoseconds(entry.last_write_time) // 1_000_000_000)
        self.write(self.encoded(info, path))

    def encoded(self, info: tarfile.TarInfo, path: str) -> bytes:
        """A header with its records."""
        try:
            return tar_header(info)
        except UnicodeEncodeError as error:
            raise FormatError("a name with half a surrogate pair, which a tar cannot carry", path) from error

    def _content(self, entry: ImageEntry, stream: str | None, size: int) -> None:
        if size:
            with self._image.open(entry, stream=stream) as content:
                while count := content.readinto(self._buffer[self._filled :]):
                    self._meter.step(self._entries, self._content_bytes)
                    self._content_bytes += count
                    self._add(count)
        self.write(bytes(-size % tarfile.BLOCKSIZE))

    def write(self, data: bytes) -> None:
        """Bytes of the tar as they are. All go out in whole pieces, however small the files are."""
        at = 0
        while at < len(data):
            count = min(len(data) - at, _PIECE - self._filled)
            self._buffer[self._filled : self._filled + count] = data[at : at + count]
            at += count
            self._add(count)

    def _add(self, count: int) -> None:
        """So many more bytes stand in the buffer."""
        self._filled += count
        if self._filled == _PIECE:
            self._flush()

    def _flush(self) -> None:
        self._file.write(self._buffer[: self._filled])
        self._filled = 0


def _regular(path: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.size = size
    return info


def _slashed(path: str) -> str:
    return path.replace("\\", "/")
