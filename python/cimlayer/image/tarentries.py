"""Entries of a CIM as entries of a tar, with the PAX records of go-winio's backuptar/tar.go."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from cimfs_ext.entries import ImageEntry
from cimfs_ext.filetimes import pax_seconds
from cimfs_ext.reader import ImageReader
from cimfs_ext.tarheader import tar_header
from cimfs_ext.tarwriter import TarStream, survey
from cimlayer.blobs.outputs import Output
from cimlayer.blobs.writebehind import PIECES_BEHIND
from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken
from cimlayer.formats.fileinfo import unix_nanoseconds
from cimlayer.host.memory import whole_pages
from cimlayer.image.entrynames import check_name, checked_streams
from cimlayer.image.kinds import (
    ATTRIBUTES,
    EXTENDED_ATTRIBUTES,
    REPARSE_DATA,
    SECURITY_DESCRIPTOR,
    TIMES,
    Records,
    value_kinds,
)
from cimlayer.image.meter import Meter
from cimlayer.limits import Usage

_PIECE = 1 << 18  # stays in the cache of a core until it is written
_END = bytes(2 * tarfile.BLOCKSIZE)
_MODES = {tarfile.DIRTYPE: 0o755, tarfile.SYMTYPE: 0o777}
_COMPILED = {
    kind.name for kind in (ATTRIBUTES, TIMES, SECURITY_DESCRIPTOR, EXTENDED_ATTRIBUTES, REPARSE_DATA)
}  # that TarStream writes, or leaves to others


def counted_entries(image: ImageReader, usage: Usage, cancel: CancellationToken) -> set[int]:
    """Check the names of all entries and count them; returns the IDs of files that have more than one name."""

    def look(counted: int, path: str, name: str) -> int:
        usage.add_counted(counted, 0)
        check_name(name, path)
        usage.add_entry(path)
        return usage.room("")[0]

    counted, several = survey(image, look, cancel.raise_if_cancelled, room=usage.room("")[0], depth=usage.path_depth)
    usage.add_counted(counted, 0)
    return several


class TarWriter:
    """Writes an uncompressed tar to a binary file. Paths are those of the image, with backslashes.

    Ordinary entries are written by compiled code: all that have neither alternate streams nor extended attributes nor
    reparse data, no hole for their content and no half surrogate pair in their path.
    """

    def __init__(self, image: ImageReader, file: Output, usage: Usage, meter: Meter) -> None:
        self._image = image
        self._usage = usage
        self._meter = meter
        self._kinds = value_kinds()
        buffers = [whole_pages(_PIECE) for _ in range(PIECES_BEHIND + 1)]
        self._stream = TarStream(image, buffers, write=file.write, step=meter.step)
        self._has_ordinary = {kind.name for kind in self._kinds} <= _COMPILED
        self.file_bytes = 0  # sum of the sizes of the files, streams and links not counted

    def others(self, several_names: set[int]) -> Iterator[tuple[str, ImageEntry]]:
        """Write all ordinary entries of the image, and give in between, in order, those that the caller is to write.

        These are files with an ID of the set too, and what has the name of a whiteout. All were counted before.
        """
        if not self._has_ordinary:
            yield from self._image.walk()
            return
        self._stream.begin(several_names)
        while True:
            size, other = self._stream.add_more(self._usage.room("")[1])
            self._add_ordinary(size)
            if other is None:
                return
            yield other

    def entry(self, path: str, entry: ImageEntry) -> None:
        """A file or directory with all that it has, its alternate streams behind it."""
        if self._has_ordinary and self._stream.add(path, entry, self._usage.room("")[1]):
            self._add_ordinary(entry.size)
            return
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

    def _add_ordinary(self, size: int) -> None:
        self._usage.add_counted(0, size)
        self.file_bytes += size

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
            self._stream.put_content(entry, stream)

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
        self._stream.put(_END)
        self._stream.flush()
        self._meter.finish()

    def _header(self, info: tarfile.TarInfo, entry: ImageEntry | None = None) -> None:
        path = info.name
        info.name = _slashed(path)
        info.mode = _MODES.get(info.type, 0o644)
        if entry is not None:
            info.pax_headers = {**info.pax_headers, "mtime": pax_seconds(entry.last_write_time)}
            info.mtime = max(0, unix_nanoseconds(entry.last_write_time) // 1_000_000_000)
        self._stream.put_header(self.encoded(info, path))

    def encoded(self, info: tarfile.TarInfo, path: str) -> bytes:
        """A header with its records."""
        try:
            return tar_header(info)
        except UnicodeEncodeError as error:
            raise FormatError("a name with half a surrogate pair, which a tar cannot carry", path) from error


def _regular(path: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.size = size
    return info


def _slashed(path: str) -> str:
    return path.replace("\\", "/")
