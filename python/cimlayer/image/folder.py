"""A folder of the host into an image."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cimfs_ext.builder import LayerBuilder
from cimlayer.errors import FormatError
from cimlayer.formats.fileinfo import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_REPARSE_POINT,
    FILE_ATTRIBUTE_SPARSE_FILE,
    Attachments,
    FileBasicInfo,
    filetime_from_ns,
)
from cimlayer.formats.reparse import symbolic_link_data
from cimlayer.host import beneath
from cimlayer.host.paths import errors_name
from cimlayer.image.directories import Directories, Location
from cimlayer.image.kinds import ATTRIBUTES, REPARSE_DATA, TIMES, value_kinds
from cimlayer.image.metadata import Found, HostMetadata, HostStream, Readable
from cimlayer.image.patterns import Patterns
from cimlayer.image.placing import Placement
from cimlayer.image.sidecar import SidecarReader

_PIECE = 1 << 20
_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_TRUSTED_TIMES = (315_532_800, 2_147_483_648)  # seconds since 1970 that every file system has, from 1980 to 2038
_ZEROS = bytes(_PIECE)


@dataclass(slots=True)
class _Entry:
    """One entry of a directory: where it lies on the host, and where in the folder as the image spells it."""

    name: bytes
    directory: int
    file: str  # relative to the folder, with slashes
    path: str  # the same with backslashes, and with the name that it has in the image
    status: os.stat_result

    def is_directory(self) -> bool:
        """Whether it is a directory of the host, and no link."""
        return stat.S_ISDIR(self.status.st_mode)


@dataclass(slots=True)
class _Name:
    """The first name of a file, where others are links to it."""

    path: str
    status: os.stat_result


class FolderSource:
    """The entries of a folder, in the order of their names, each directory before what it holds.

    Each directory is opened from the one above it, so that it may lie deeper than a path can be long, and no link is
    followed. ``metadata`` and ``sidecar`` are where the host keeps what files of Windows have besides. ``step`` is
    called with the entries and bytes of content so far. ``only`` is the name of the one entry of the folder that is
    taken, and the name that it gets. FormatError and OSError are those of
    :func:`~cimlayer.create_image`.
    """

    def __init__(
        self,
        folder: Path,
        builder: LayerBuilder,
        placement: Placement,
        exclude: Patterns,
        metadata: HostMetadata | None,
        sidecar: SidecarReader | None,
        step: Callable[[int, int], object],
        only: tuple[str, str] | None = None,
    ) -> None:
        self.entries = 0
        self.bytes = 0
        self.warnings: list[str] = []
        self._folder = folder
        self._builder = builder
        self._image = builder.image
        self._placement = placement
        self._exclude = exclude
        self._metadata = metadata
        self._sidecar = sidecar
        self._step = step
        self._only = only
        self._kinds = value_kinds()
        self._hidden = 0  # entries of which streams may be hidden
        self._first_names: dict[tuple[int, int] | str, _Name] = {}
        self._buffer = memoryview(bytearray(_PIECE))

    def add(self) -> None:
        """Bring all of it into the image."""
        pending: list[tuple[Location, str]] = [((), "")]
        with Directories(self._folder, os.fsencode(self._folder)) as directories, beneath.privileged():
            while pending:
                location, inside = pending.pop()
                file = os.fsdecode(b"/".join(location))
                below = []
                for entry in self._entries_of(file, inside, directories.enter(location)):
                    with errors_name_whole(self._folder / entry.file):
                        placed = self._add(entry)
                    if placed is not None and entry.is_directory():
                        below.append(((*location, entry.name), entry.path))
                self._placement.forget(inside)
                pending.extend(reversed(below))
        if self._hidden:
            what = "of reparse points, system directories and empty system files"
            self.warnings.append(f"ntfs-3g does not show the alternate streams {what}: {self._hidden} here")

    def _entries_of(self, file: str, inside: str, directory: int) -> Iterator[_Entry]:
        with errors_name(self._folder / file):
            names = sorted(beneath.names(directory), key=os.fsdecode)
        only = self._only if not file else None
        for name in names:
            if only is not None and os.fsdecode(name) != only[0]:
                continue
            inner = f"{file}/{os.fsdecode(name)}" if file else os.fsdecode(name)
            try:
                spelled = name.decode("utf-8", "surrogatepass") if only is None else only[1]
            except UnicodeDecodeError:
                shown = os.fsencode(inner).decode("utf-8", "backslashreplace")
                self._placement.leave_out(shown, "a name that is not UTF-8")
                continue
            with errors_name_whole(self._folder / inner):
                status = _status(name, directory)
            yield _Entry(name, directory, inner, f"{inside}\\{spelled}" if inside else spelled, status)

    def _add(self, entry: _Entry) -> str | None:
        """Returns where it went; None for what is left out."""
        if self._exclude.match(entry.path, entry.is_directory()):
            self._placement.excluded += 1
            return None
        found = self._found(entry)
        unsuitable = _unsuitable(entry, found)
        if found.name is not None and unsuitable is None and not set(found.name) & set("/\\:"):
            entry.path = entry.path[: entry.path.rfind("\\") + 1] + found.name
        where = str(self._folder / entry.file)
        path = self._placement.place(entry.path, entry.is_directory(), where, None, unsuitable)
        if path is None:
            return None
        self.entries += 1
        if not self._add_link(entry, found, path):
            self._add_file(entry, found, path)
        self._step(self.entries, self.bytes)
        return path

    def _found(self, entry: _Entry) -> Found:
        """What is known of an entry, from the host's own metadata or from what is kept for it."""
        found = None
        if self._sidecar is not None:
            is_directory = None if stat.S_ISLNK(entry.status.st_mode) else entry.is_directory()
            found = self._sidecar.read(entry.file, is_directory)
        if found is None and self._metadata is not None:
            found = self._metadata.read(entry.directory, entry.name)
        if found is None:
            return Found()
        is_fifo = stat.S_ISFIFO(entry.status.st_mode)
        self._hidden += found.hides_streams or (found.live and is_fifo)
        if found.warning:
            self.warnings.append(f"{entry.file}: {found.warning}")
        if TIMES.name in found.values and not found.live:
            found.values[TIMES.name] = _times_now(found.values[TIMES.name], entry.status)
        return found

    def _add_link(self, entry: _Entry, found: Found, path: str) -> bool:
        """Whether the entry is one more name of a file; if it is the first one, it is noted."""
        status = entry.status
        keys: list[tuple[int, int] | str] = []
        if not entry.is_directory():
            if kept := found.link_to or found.path:  # it may be a copy, where the host had no links
                keys.append(kept)
            if status.st_nlink > 1:
                keys.append((status.st_dev, status.st_ino))
        names = [self._first_names.setdefault(key, _Name(path, status)) for key in keys]
        first = next((name for name in names if name.path != path and _same_content(name.status, status)), None)
        if first is None:
            return False
        self._builder.count(path, 0)
        path, target, _ = self._builder.link(path, first.path)
        self._builder.make_link(path, target)
        return True

    def _add_file(self, entry: _Entry, found: Found, path: str) -> None:
        values = self._values(entry, found)
        reparse_data = values[REPARSE_DATA.name]
        has_content = stat.S_ISREG(entry.status.st_mode)
        with ExitStack() as stack:
            file, size, regions = None, 0, []
            if has_content:
                file = stack.enter_context(self._opened(entry))
                size = os.fstat(file.fileno()).st_size
                regions = beneath.data_regions(file, size)
                if ATTRIBUTES.name not in found.values and regions != _whole(size):
                    values[ATTRIBUTES.name] |= FILE_ATTRIBUTE_SPARSE_FILE
            attributes = _attributes(values[ATTRIBUTES.name], bool(reparse_data), entry)
            creation, last_write, change, last_access = values[TIMES.name]
            info = FileBasicInfo(creation, last_access, last_write, change, attributes)
            attachments = Attachments(values["security_descriptor"], values["extended_attributes"], reparse_data)
            self._builder.count(path, size)
            if (placed := self._builder.add(path, attributes)) is None:
                return
            self._builder.create(placed[0], info, size, attachments)
            if file is not None:
                self.bytes += size
                leave_zeros = bool(attributes & FILE_ATTRIBUTE_SPARSE_FILE)
                self._write(file, entry.file, size, regions, leave_zeros=leave_zeros)
        for stream in found.streams:
            self._add_stream(path, stream)

    def _values(self, entry: _Entry, found: Found) -> dict[str, Any]:
        leads_to_directory = entry.is_directory()
        if stat.S_ISLNK(entry.status.st_mode):
            leads_to_directory = beneath.leads_to_directory(entry.name, entry.directory)
        values = {kind.name: kind.of_host(entry.status, leads_to_directory) for kind in self._kinds}
        values |= found.values
        if stat.S_ISLNK(entry.status.st_mode) and not values[REPARSE_DATA.name]:
            target = beneath.read_link(entry.name, entry.directory)
            try:
                values[REPARSE_DATA.name] = symbolic_link_data(target.decode("utf-8", "surrogatepass"))
            except UnicodeDecodeError:
                shown = target.decode("utf-8", "backslashreplace")
                raise FormatError(f"a link target that is not UTF-8: {shown}", entry.file) from None
            if leads_to_directory:
                values[ATTRIBUTES.name] |= FILE_ATTRIBUTE_DIRECTORY
        return values

    def _opened(self, entry: _Entry) -> io.RawIOBase:
        file = beneath.open_file(entry.name, entry.directory)
        try:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "it was replaced while it was read")
        except BaseException:
            file.close()
            raise
        return file

    def _add_stream(self, path: str, stream: HostStream) -> None:
        inner = f"{path}:{stream.name}"
        self._builder.count(inner, stream.size)
        self._builder.add_stream(inner, stream.size)
        with stream.open() as file:
            self._write(file, inner, stream.size, _whole(stream.size), leave_zeros=False)

    def _write(
        self, file: Readable, name: str, size: int, regions: list[tuple[int, int]], *, leave_zeros: bool
    ) -> None:
        """The content. Where nothing has any, or with ``leave_zeros`` only zeros, nothing is written: it is a hole."""
        end = held = 0  # of the region before, and zeros that are not written yet
        for start, length in regions:
            held += start - end
            at, end = start, start + length
            file.seek(at)
            while at < end:
                piece = self._buffer[: min(end - at, _PIECE)]
                if not (count := file.readinto(piece)):
                    raise OSError(errno.EIO, "the file became shorter while it was read", name)
                self._step(self.entries, self.bytes)
                if leave_zeros and held == at and piece[:count] == _ZEROS[:count]:
                    held += count
                else:
                    self._write_zeros(held)
                    self._image.write(piece[:count])
                    held, leave_zeros = 0, False
                at += count
        held += size - end
        if held < size:
            self._write_zeros(held)

    def _write_zeros(self, count: int) -> None:
        while count > 0:
            self._step(self.entries, self.bytes)
            self._image.write(_ZEROS[: min(count, _PIECE)])
            count -= _PIECE


@contextlib.contextmanager
def errors_name_whole(path: Path) -> Iterator[None]:
    """OSErrors name the entry by its whole path; calls know the part below an open directory at most."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def _status(name: bytes, directory: int) -> os.stat_result:
    """Of what has become a reparse point of ntfs-3g, Linux says EIO once: it was another kind of file before."""
    try:
        return beneath.status(name, directory)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return beneath.status(name, directory)


def _same_content(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether neither of two copies seems to have been edited since."""
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _unsuitable(entry: _Entry, found: Found) -> str | None:
    name = os.fsdecode(entry.name)
    kind = stat.S_IFMT(entry.status.st_mode)
    if kind == stat.S_IFIFO and found.live:
        return None  # an empty system file: Interix's, or any other
    if kind in _SPECIAL and not found.values.get(REPARSE_DATA.name):
        return f"neither file nor directory nor symbolic link, but {_SPECIAL[kind]}"
    if ":" in name:
        return "a colon in a name, which Windows does not have"
    if "\\" in name:
        return "a backslash in a name"
    return None


def _attributes(attributes: int, is_reparse_point: bool, entry: _Entry) -> int:
    """Those that the entry has for certain; a reparse point of NTFS may look like a link, or like a FIFO."""
    if entry.is_directory():
        attributes |= FILE_ATTRIBUTE_DIRECTORY
    elif stat.S_ISREG(entry.status.st_mode):
        attributes &= ~FILE_ATTRIBUTE_DIRECTORY
    attributes &= ~FILE_ATTRIBUTE_REPARSE_POINT
    return attributes | (FILE_ATTRIBUTE_REPARSE_POINT if is_reparse_point else 0)


def _times_now(times: tuple[int, int, int, int], status: os.stat_result) -> tuple[int, int, int, int]:
    """The times that were kept, unless the file has been written since. Some file systems have whole seconds."""
    creation, last_write, _, last_access = times
    host = filetime_from_ns(status.st_mtime_ns)
    earliest, latest = (filetime_from_ns(seconds * 10**9) for seconds in _TRUSTED_TIMES)
    whole_seconds = status.st_mtime_ns % 10**9 == 0
    if host == last_write or not earliest <= last_write < latest or (whole_seconds and 0 <= last_write - host < 10**7):
        return times
    return creation, host, host, last_access


def _whole(size: int) -> list[tuple[int, int]]:
    return [(0, size)] if size else []
