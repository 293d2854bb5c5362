"""Files out of an image, onto a file system of the host.

The image is untrusted: every directory is opened relative to the one above it and no symbolic link is
followed below the destination, so that neither a link of the image nor one that lies in wait leads out of it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from cimfs_ext.entries import ImageEntry
from cimfs_ext.extractor import FileExtractor
from cimfs_ext.reader import ImageReader
from cimlayer.errors import CorruptImageError, ImageError
from cimlayer.events import CancellationToken
from cimlayer.formats.reparse import SYMBOLIC_LINK
from cimlayer.host import beneath
from cimlayer.host.interrupts import deferred
from cimlayer.image.directories import Directories, Location
from cimlayer.image.entrynames import check_name, checked_streams, host_name, target_inside
from cimlayer.image.metadata import Sidecar, write_extended_attributes
from cimlayer.image.writers import Place, Writers
from cimlayer.limits import DEFAULT_LIMITS, Limits, Usage

if sys.platform == "win32":
    from cimlayer.image.windows import kept_metadata, privileged

Metadata = Literal["none", "sidecar", "xattr", "ntfs"]

_BATCH = 256  # files handed to a thread at a time
_NO_LINKS = {  # how file systems say that they have none, or none here
    errno.EPERM,
    errno.EACCES,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EINVAL,
    errno.EMLINK,
    errno.EXDEV,
}


@dataclass(slots=True)
class Extraction:
    """What :func:`extract` made. ``bytes`` counts file content, a hard-linked file once.

    ``renamed`` says under which path, relative to the destination, an entry lies whose name is too long for the host;
    ``unresolved_links`` are the symbolic links that, though links were asked for, became an empty file or directory.
    ``hard_links`` are the names beyond the first one of a file, copies where the host has no hard links. ``lost``
    counts by kind of metadata, such as ``streams``, the files that the volume or the caller could not have it for.
    """

    files: int = 0
    directories: int = 0
    hard_links: int = 0
    symbolic_links: int = 0
    bytes: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    unresolved_links: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


def extract(
    image: ImageReader,
    path: str,
    destination: str | os.PathLike[str],
    *,
    metadata: Metadata | None = None,
    symlinks: bool = False,
    jobs: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    cancel: CancellationToken | None = None,
) -> Extraction:
    """Write a file, or what a directory holds, into the directory ``destination``, which is made if it is missing.

    Files keep their content, holes, hard links among each other, and the times of the last access and write.
    ``metadata`` says what becomes of alternate streams, EAs, security descriptors, reparse data, attributes and all
    four times: dropped; written to the directory ``DESTINATION.metadata`` (see ``image/metadata.py``);
    to extended attributes of the files (``user.cimlayer.*``); or, on Windows alone and the default there, given to the
    files (``ntfs``), as far as the volume and the caller's rights allow. Otherwise, a reparse point is written as the
    file or directory that carries it; with ``symlinks``, relative symbolic links that stay inside the destination
    become links of the host instead. Names that the host cannot hold for their length are shortened.

    Nothing that exists is replaced: FileExistsError; existing directories are entered. ``jobs`` is the number of
    threads that write. OSErrors name the file of the host, an ImageError is about the image. LimitError for an entry
    that goes beyond ``limits``, before any of it is written; alternate streams count where they are kept, and ratio has
    no meaning here. ValueError for another kind of ``metadata``. What was written before an error, or before ``cancel``
    was cancelled (OperationCancelledError) or an interrupt came, stays, but no file in part.
    """
    if metadata is None:
        metadata = "ntfs" if sys.platform == "win32" else "none"
    if metadata not in get_args(Metadata):
        raise ValueError(f"metadata is kept as one of {', '.join(get_args(Metadata))}, not {metadata!r}")
    if metadata == "xattr" and not hasattr(os, "setxattr"):
        raise NotImplementedError("this system has no calls for extended attributes: use a sidecar")
    if metadata == "ntfs" and sys.platform != "win32":
        raise NotImplementedError("metadata of NTFS needs Windows: use a sidecar")
    top = image.stat(path)
    cancel = CancellationToken(cancel)
    root = Path(os.path.abspath(destination))
    with deferred(cancel), ExitStack() as stack:
        root.mkdir(parents=True, exist_ok=True)
        sidecar = stack.enter_context(Sidecar(root, cancel)) if metadata == "sidecar" else None
        directories = stack.enter_context(Directories(root, os.fsencode(Path(destination))))
        extractor = _extractor(image, metadata, directories, stack)
        writers = stack.enter_context(Writers(extractor, jobs, cancel))
        usage = Usage(limits, image.name)
        symlinks = symlinks and metadata != "ntfs"  # they are reparse points there
        run = _Run(image, directories, extractor, writers, sidecar, symlinks, metadata == "xattr", usage, cancel)
        run.write_tree(path, top)
        run.result.lost = extractor.lost
        return run.result


def _extractor(image: ImageReader, metadata: Metadata, directories: Directories, stack: ExitStack) -> FileExtractor:
    if sys.platform == "win32" and metadata == "ntfs":
        stack.enter_context(privileged())
        return FileExtractor(image, kept_metadata(directories.enter(())))
    return FileExtractor(image)


@dataclass(slots=True)
class _Item:
    """An entry that is finished after all files are written."""

    path: str
    entry: ImageEntry
    directory: Location
    name: bytes


class _Run:
    """One extraction: the tree first, then what depends on files being there, the times of directories last."""

    def __init__(
        self,
        image: ImageReader,
        directories: Directories,
        extractor: FileExtractor,
        writers: Writers,
        sidecar: Sidecar | None,
        symlinks: bool,
        xattrs: bool,
        usage: Usage,
        cancel: CancellationToken,
    ) -> None:
        self.result = Extraction()
        self._image = image
        self._directories = directories
        self._extractor = extractor
        self._writers = writers
        self._sidecar = sidecar
        self._symlinks = symlinks
        self._xattrs = xattrs
        self._usage = usage
        self._cancel = cancel
        self._first_names: dict[int, _Item] = {}
        self._hard_links: list[_Item] = []
        self._links: list[tuple[_Item, str]] = []
        self._made: list[_Item] = []
        self._with_attributes: list[_Item] = []

    def write_tree(self, path: str, top: ImageEntry) -> None:
        base = path.replace("/", "\\").strip("\\")
        if top.is_directory:
            self._write_directory(base, top, ())
        else:
            self._write_entries(base.rpartition("\\")[0], [top], ())
        self._writers.finish()
        self._finish()

    def _write_directory(self, path: str, directory: ImageEntry, location: Location) -> None:
        pending = [(path, directory, location)]
        seen = {directory.file_id}
        while pending:
            path, directory, location = pending.pop()
            below = self._write_entries(path, self._image.listdir(directory), location)
            for item in reversed(below):
                if item.entry.file_id in seen:
                    raise CorruptImageError(errno.EBADMSG, "a directory has two names, or lies in itself", item.path)
                seen.add(item.entry.file_id)
                pending.append((item.path, item.entry, (*item.directory, item.name)))

    def _write_entries(self, path: str, entries: list[ImageEntry], location: Location) -> list[_Item]:
        """Make the entries of one directory; returns those that are directories themselves."""
        below = []
        batch: list[tuple[int, bytes]] = []
        for entry in entries:
            self._cancel.raise_if_cancelled()
            inner = f"{path}\\{entry.name}" if path else entry.name
            self._usage.add_entry(inner)
            item = _Item(inner, entry, location, self._host_name(inner, entry.name, location))
            is_link = self._is_link(item)
            if is_link:
                pass
            elif entry.is_directory:
                below.append(item)
            elif self._is_first_name(item):
                self._usage.add_content(inner, entry.size)
                batch.append((entry.file_id, item.name))
                self.result.files += 1
                self.result.bytes += entry.size
            first = None if entry.is_directory else self._first_names.get(entry.file_id)
            if (first is None or first is item) and (self._sidecar is not None or (self._xattrs and not is_link)):
                self._usage.add_streams(inner, checked_streams(self._image, inner, entry))
            if self._sidecar is not None:
                local = os.fsdecode(b"/".join((*location, item.name)))
                self._sidecar.add(self._image, inner, entry, local, first.path if first else None)
        fd = self._directories.enter(location)
        for item in below:
            self._directories.make(item.name)
        where = Place(path, self._directories.path(location))
        for start in range(0, len(batch), _BATCH):
            self._writers.submit(fd, batch[start : start + _BATCH], where)
        self.result.directories += len(below)
        self._made += below
        return below

    def _host_name(self, path: str, name: str, location: Location) -> bytes:
        check_name(name, path)
        outside = host_name(name)
        if outside != name.encode("utf-8", "surrogatepass"):
            self.result.renamed[path] = os.fsdecode(b"/".join((*location, outside)))
        return outside

    def _is_first_name(self, item: _Item) -> bool:
        first = self._first_names.setdefault(item.entry.file_id, item)
        if first is item:
            if self._xattrs:
                self._with_attributes.append(item)
            return True
        self._hard_links.append(item)
        return False

    def _is_link(self, item: _Item) -> bool:
        if not self._symlinks or item.entry.reparse_tag != SYMBOLIC_LINK:
            return False
        target = target_inside(self._image.reparse_data(item.entry), len(item.directory))
        if target is None or (item.entry.is_directory and self._image.listdir(item.entry)):
            self.result.unresolved_links.append(item.path)
            return False
        self._links.append((item, target))
        return True

    # ---- when all files are there ----

    def _finish(self) -> None:
        for item in self._hard_links:
            self._cancel.raise_if_cancelled()
            self._link(item, self._first_names[item.entry.file_id])
            self.result.hard_links += 1
        for item, target in self._links:
            self._symlink(item, target)
        for item in self._with_attributes:
            with self._entered(item) as fd:
                self._write_attributes(item, fd)
        for item in reversed(self._made):
            with self._entered(item) as fd:
                if self._xattrs:
                    self._write_attributes(item, fd)
                self._extractor.write_metadata(fd, item.name, item.entry.file_id)

    def _symlink(self, item: _Item, target: str) -> None:
        """The link, or what carries it where the host has no symbolic links."""
        with self._entered(item) as fd:
            try:
                beneath.symlink(target, item.name, fd, is_directory=item.entry.is_directory)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            else:
                self._extractor.write_metadata(fd, item.name, item.entry.file_id)
                self.result.symbolic_links += 1
                return
            if item.entry.is_directory:
                self._directories.make(item.name)
        self.result.unresolved_links.append(item.path)
        if item.entry.is_directory:
            self._made.append(item)
            self.result.directories += 1
        else:
            self._write_file(item)
            self.result.files += 1
            self.result.bytes += item.entry.size

    @contextmanager
    def _entered(self, item: _Item) -> Iterator[int]:
        """The open directory of an entry; errors name the entry as the host does, not a component or a descriptor."""
        self._cancel.raise_if_cancelled()
        fd = self._directories.enter(item.directory)
        try:
            yield fd
        except ImageError:
            raise
        except OSError as error:
            error.filename = self._directories.path(item.directory, item.name)
            raise

    def _link(self, item: _Item, first: _Item) -> None:
        source = beneath.duplicate(self._directories.enter(first.directory))
        try:
            with self._entered(item) as fd:
                beneath.link(first.name, source, item.name, fd)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._write_file(item)
        finally:
            beneath.close(source)

    def _write_file(self, item: _Item) -> None:
        """A copy, where there can be no link."""
        self._usage.add_content(item.path, item.entry.size)
        where = Place(item.path.rpartition("\\")[0], self._directories.path(item.directory))
        self._writers.submit(self._directories.enter(item.directory), [(item.entry.file_id, item.name)], where)
        self._writers.finish()
        if self._xattrs:
            self._with_attributes.append(item)

    def _write_attributes(self, item: _Item, directory: int) -> None:
        fd = os.open(item.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            write_extended_attributes(fd, self._image, item.entry)
        finally:
            os.close(fd)
