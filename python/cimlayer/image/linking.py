"""The last part of an extraction: what depends on all files being there, and the times of directories."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from cimfs_ext.entries import ImageEntry
from cimlayer.formats.fileinfo import unix_nanoseconds
from cimlayer.host import beneath
from cimlayer.image.directories import Location
from cimlayer.image.extraction import Item, Listing, Work

_SEPARATOR = os.fsencode(os.sep)
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}  # any other error says that there are no links here
Target = Callable[[], str]  # of a symbolic link, once all names are known


class Finisher:
    """Collects what is to be done, and does it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.first_names: dict[int, Item | Listing] = {}  # of files, by ID
        self._hard_links: list[Item] = []
        self._links: list[tuple[Item, Target]] = []
        self._directories: list[Item] = []
        self._files_with_metadata: list[Item] = []
        self._temporary = b".cimlayer-%s" % os.urandom(6).hex().encode()

    def first_name(self, item: Item) -> Item:
        """The item under which a file is written; any other name of the file becomes a hard link to it."""
        first = self.first_names.setdefault(item.entry.file_id, item)
        if first is not item:
            self._hard_links.append(item)
        elif self._work.metadata is not None:
            self._files_with_metadata.append(item)
        return self._item(item.entry, first)

    def first_name_of(self, entry: ImageEntry) -> Item | None:
        """The item under which a file was written, or None."""
        first = None if entry.is_directory else self.first_names.get(entry.file_id)
        return None if first is None else self._item(entry, first)

    def _item(self, entry: ImageEntry, first: Item | Listing) -> Item:
        """Of an ordinary file, which has none until a second name asks for it."""
        if isinstance(first, Listing):
            name = self._work.ordinary.name_of(first.directory, entry.file_id)
            inner = "\\".join(filter(None, (first.path, name.decode("utf-8", "surrogatepass"))))
            first = self.first_names[entry.file_id] = Item(inner, entry, first.location, name)
        return first

    def add_link(self, item: Item, target: Target) -> None:
        """A symbolic link is to be made."""
        self._links.append((item, target))

    def add_directory(self, item: Item) -> None:
        """A directory was made."""
        self._directories.append(item)

    def finish(self) -> None:
        """Do all that is left."""
        work = self._work
        for item in self._hard_links:
            self._link(item)
            work.result.hard_links += 1
        for item, target in self._links:
            self._symlink(item, target())
        for item in self._files_with_metadata:
            self._write_metadata(item)
        for item in reversed(self._directories):
            if work.metadata is not None:
                self._write_metadata(item)
            if work.metadata is None or not work.metadata.keeps_reparse_points:
                with work.entered(item) as fd:
                    beneath.set_times(item.name, fd, item.times)

    def _link(self, item: Item) -> None:
        """A hard link; where there can be none, a copy, to which further names of the file are links if they can be."""
        work = self._work
        first = self._item(item.entry, self.first_names[item.entry.file_id])
        source = beneath.duplicate(work.directories.enter(first.directory))
        try:
            with work.entered(item) as fd:

                def link(name: bytes) -> None:
                    beneath.link(first.name, source, name, fd)

                self._put(fd, item, link, lambda: _is_whole(fd, item))
        except OSError as error:
            if isinstance(error, (FileExistsError, IsADirectoryError)) or error.errno in _OF_THE_DISK:
                raise
            work.write_copy(item)
            if error.errno == errno.EMLINK:
                self.first_names[item.entry.file_id] = item
            elif work.sidecar is None:
                work.losses.add_copy()
            if work.metadata is not None:
                self._files_with_metadata.append(item)
        finally:
            beneath.close(source)

    def _put(self, fd: int, item: Item, make: Callable[[bytes], None], is_there: Callable[[], bool]) -> None:
        """Make a link; what has its name is refused, kept if it is that very link, or replaced."""
        try:
            make(item.name)
        except FileExistsError:
            existing = self._work.existing
            if existing == "refuse":
                raise
            if existing == "overwrite" or not is_there():
                make(self._temporary)
                try:
                    beneath.rename(self._temporary, fd, item.name)
                finally:
                    _remove(self._temporary, fd)  # still there if the two names were links to one file

    def _symlink(self, item: Item, target: str) -> None:
        """The link, or what carries it where the host has no symbolic links."""
        is_directory = item.entry.is_directory
        try:
            with self._work.entered(item) as fd:

                def link(name: bytes) -> None:
                    beneath.symlink(target, name, fd, is_directory=is_directory)

                self._put(fd, item, link, lambda: _leads_to(fd, item.name, target))
                beneath.set_times(item.name, fd, item.times)
        except OSError as error:
            if isinstance(error, (FileExistsError, IsADirectoryError)) or error.errno in _OF_THE_DISK:
                raise
            self._write_in_place_of_link(item)
        else:
            self._work.result.symbolic_links += 1
            if self._work.sidecar is None:
                self._work.losses.add_plain(item.entry, as_link=True)

    def _write_in_place_of_link(self, item: Item) -> None:
        work = self._work
        work.result.unresolved_links.append(item.path)
        if work.metadata is None and work.sidecar is None:
            work.losses.add_plain(item.entry)
        if item.entry.is_directory:
            with work.entered(item):
                work.directories.make(item.name)
            self._directories.append(item)
            work.result.directories += 1
            return
        work.write_copy(item)
        work.result.files += 1
        work.result.bytes += item.entry.size
        if work.metadata is not None:
            self._files_with_metadata.append(item)

    def _write_metadata(self, item: Item) -> None:
        work = self._work
        assert work.metadata is not None
        with work.entered(item) as fd:
            lost = work.metadata.write(fd, item.name, work.image, item.entry, item.renamed)
            work.losses.counts.update(lost)


def _is_whole(fd: int, item: Item) -> bool:
    """Whether another file of that name is a copy, as where the host has no hard links."""
    status = beneath.status(item.name, fd)
    written = unix_nanoseconds(item.entry.last_write_time)
    return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (item.entry.size, written)


def _leads_to(fd: int, name: bytes, target: str) -> bool:
    try:
        return beneath.read_link(name, fd).replace(_SEPARATOR, b"/") == target.encode("utf-8", "surrogatepass")
    except OSError:
        return False


def _remove(name: bytes, fd: int) -> None:
    try:
        beneath.remove(name, fd)
    except FileNotFoundError:
        return


def relative_target(item: Item, location: Location) -> str:
    """How a link leads to a place below the destination."""
    common = 0
    while common < min(len(item.directory), len(location)) and item.directory[common] == location[common]:
        common += 1
    ups = [".."] * (len(item.directory) - common)
    parts = [part.decode("utf-8", "surrogatepass") for part in location[common:]]
    return "/".join([*ups, *parts]) or "."
