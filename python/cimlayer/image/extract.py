"""Files out of an image, onto a file system of the host.

The image is untrusted: every directory is opened relative to the one above it and no symbolic link is
followed below the destination, so that neither a link of the image nor one that lies in wait leads out of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Literal, get_args

from cimfs_ext.entries import ImageEntry
from cimfs_ext.extractor import OrdinaryFiles
from cimfs_ext.imagepath import inner_path
from cimfs_ext.reader import ImageReader
from cimlayer.errors import CorruptImageError
from cimlayer.events import CancellationToken, ProgressCallback
from cimlayer.formats.reparse import MOUNT_POINT, SYMBOLIC_LINK
from cimlayer.host import beneath
from cimlayer.host.directories import make_directories, taken_back
from cimlayer.host.interrupts import deferred
from cimlayer.image.directories import Directories, Location
from cimlayer.image.entrynames import (
    check_image,
    check_name,
    checked_streams,
    host_name,
    target_from_root,
    target_inside,
)
from cimlayer.image.extraction import Extraction, Item, Listing, Work
from cimlayer.image.linking import Finisher, relative_target
from cimlayer.image.losses import Losses
from cimlayer.image.meter import Meter
from cimlayer.image.patterns import Patterns, has_wildcards
from cimlayer.image.selection import Spelling, select
from cimlayer.image.sidecar import Sidecar
from cimlayer.image.stores import Metadata, check_metadata, metadata_on_host
from cimlayer.image.writers import Place, Writers
from cimlayer.limits import DEFAULT_LIMITS, Limits, Usage

Existing = Literal["refuse", "skip", "overwrite"]

_BATCH = 256  # files handed to a thread at a time


def extract(
    image: ImageReader,
    path: str | PurePath | Sequence[str | PurePath],
    destination: str | os.PathLike[str],
    *,
    metadata: Metadata = "auto",
    exclude: Iterable[str] = (),
    strip: int = 0,
    existing: Existing = "refuse",
    symlinks: bool = False,
    rebase: bool = False,
    jobs: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: ProgressCallback | None = None,
    cancel: CancellationToken | None = None,
) -> Extraction:
    """Write files of an image into the directory ``destination``, which is made if it is missing.

    ``path`` is a file, or a directory whose contents go into the destination. With several paths, a pattern as in
    gitignore(5), or ``strip``, entries keep their paths in the image, but for as many leading components as ``strip``
    says; what has no more than these is not written. ``exclude`` are patterns of what to leave out.

    Files keep their content, holes, hard links among each other, and the times of the last access and write.
    ``metadata`` says what becomes of alternate streams, EAs, security descriptors, reparse data, attributes and all
    four times: ``native``, all of it goes to the NTFS volume that the destination lies on, of Windows or mounted by
    ntfs-3g;
    ``sidecar``, to the directory ``DESTINATION.metadata`` (see ``image/sidecar.py``); ``xattr``, to extended attributes
    of the files (``user.cimlayer.*``); ``none``, it is dropped; ``auto``, ``native`` on NTFS and else ``none``. What is
    lost is counted in the result.

    But for ``native``, a reparse point is written as the file or directory that carries it. With ``symlinks``, relative
    symbolic links that stay inside the destination become links of the host instead; with ``rebase``, also absolute
    ones and mount points, whose drive is taken for the destination, or for ``Files`` in a layer. Names that the host
    says are too long are shortened.

    Existing directories are entered. Existing files are FileExistsError, unless ``existing`` says to ``overwrite`` them
    or to ``skip`` those with the same size and write time: a file gets its name only once it is whole, so that an
    interrupted extraction goes on where it ended. ``jobs`` is the number of threads that write. ``progress`` is called
    with :class:`~cimlayer.FilesProgress`, in the thread of the caller.

    OSErrors name the file of the host, an ImageError is about the image, PathNotFoundError among them. LimitError for
    an entry that goes beyond ``limits``, before any of it is written; alternate streams count where they are kept, and
    ratio has no meaning here. ValueError for another kind of ``metadata`` or a malformed pattern. What was written
    before an error, or before ``cancel`` was cancelled (OperationCancelledError) or an interrupt came, stays, but no
    file in part.
    """
    check_metadata(metadata)
    if existing not in get_args(Existing):
        raise ValueError(f"what exists is one of {', '.join(get_args(Existing))}, not {existing!r}")
    if strip < 0:
        raise ValueError("strip is a number of components")
    excluded = Patterns(exclude)
    check_image(image)
    if isinstance(path, bytes):
        raise TypeError("paths in an image are str or PurePath, not bytes")
    several = [path] if isinstance(path, (str, PurePath)) else path
    paths = [inner_path(each) for each in several]
    whole = several is not path and not strip and (image.exists(paths[0]) or not has_wildcards(paths[0]))
    tops = [(_canonical(paths[0]), image.stat(paths[0]))] if whole else select(image, paths)
    cancel = CancellationToken(cancel)
    root = Path(os.path.abspath(destination))
    result = Extraction()
    meter = Meter(image.name, progress, cancel)
    sizes: dict[int, int] = {}

    def written(files: list[tuple[int, bytes]], skipped: list[bytes], size: int) -> None:
        if existing == "skip":
            names = set(skipped)
            found = [sizes.pop(file_id) for file_id, name in files if name in names and file_id in sizes]
            result.skipped += len(found)
            result.files -= len(found)
            result.bytes -= sum(found)
        meter.step(result.files, size)

    with deferred(cancel), ExitStack() as stack:
        made: list[Path] = []
        make_directories(root, made)
        directories = stack.enter_context(Directories(root, os.fsencode(Path(destination))))
        with taken_back(made):
            store = metadata_on_host(directories.enter(()), metadata, os.fspath(destination))
        stack.enter_context(beneath.privileged())
        sidecar = None
        if metadata == "sidecar":
            sidecar = stack.enter_context(Sidecar(root, cancel, extend=existing != "refuse"))
        writers = stack.enter_context(Writers(image, jobs, cancel, existing, written))
        usage = Usage(limits, image.name)
        losses = Losses(image)
        symlinks = symlinks or rebase
        work = Work(
            image,
            directories,
            writers,
            store,
            sidecar,
            symlinks,
            rebase,
            existing,
            usage,
            cancel,
            result,
            losses,
            OrdinaryFiles(image),
            sizes,
        )
        _Tree(work, excluded, None if whole else strip).write(tops)
        for count, entry in work.ordinary.alike.values():
            losses.add_plain(entry, count=count)
        result.lost = dict(losses.counts)
        meter.finish()
        return result


def _canonical(path: str) -> str:
    return "\\".join(name for name in path.replace("/", "\\").split("\\") if name)


class _Tree:
    """The tree of one extraction. ``strip`` is None if what is extracted comes without the path that leads to it."""

    def __init__(self, work: Work, exclude: Patterns, strip: int | None) -> None:
        self._work = work
        self._exclude = exclude
        self._strip = strip
        self._base = ""  # whose content goes into the destination
        self._finisher = Finisher(work)
        self._places: dict[str, Location] = {}  # of directories above what is extracted
        self._seen: set[int] = set()
        self._spelling = Spelling(work.image)

    def write(self, tops: list[tuple[str, ImageEntry]]) -> None:
        for path, top in tops:
            self._write_top(path, top)
        self._work.writers.finish()
        self._finisher.finish()

    def _write_top(self, path: str, top: ImageEntry) -> None:
        above, _, name = path.rpartition("\\")
        if self._strip is None:
            self._base = path if top.is_directory else above
        if self._exclude.cover(path, top.is_directory):
            self._work.result.excluded += 1
        elif top.is_directory and (self._strip is None or not path):
            self._seen.add(top.file_id)
            self._write_below([(path, top, ())])
        else:
            location = () if self._strip is None else self._place_of(above)
            below = self._write_entries(above, [(name, top)], location)
            self._note(below)
            self._write_below(below)

    def _place_of(self, path: str) -> Location:
        """Where a directory lies that is only on the way to what is extracted; made if it is missing."""
        if not path:
            return ()
        if path not in self._places:
            above, _, name = path.rpartition("\\")
            location = self._place_of(above)
            ((_, _, self._places[path]),) = self._write_entries(above, [(name, self._work.image.stat(path))], location)
        return self._places[path]

    def _write_below(self, pending: list[tuple[str, ImageEntry, Location]]) -> None:
        while pending:
            path, directory, location = pending.pop()
            others, files = self._take_ordinary(path, directory, location)
            below = self._write_entries(path, [(entry.name, entry) for entry in others], location, files)
            self._note(below)
            pending.extend(reversed(below))

    def _take_ordinary(
        self, path: str, directory: ImageEntry, location: Location
    ) -> tuple[list[ImageEntry], list[tuple[int, bytes]]]:
        """What a directory holds: the entries to be looked at one by one, and files to be written without that."""
        work = self._work
        looks_at_each = self._exclude or work.metadata is not None or work.sidecar is not None
        if looks_at_each or work.existing == "skip" or self._is_stripped(path):
            return work.image.listdir(directory), []
        work.cancel.raise_if_cancelled()
        others, files, count, size = work.ordinary.take(
            directory,
            self._finisher.first_names,
            Listing(path, directory, location),
            room=work.usage.room(path),
        )
        work.usage.add_counted(count, size)
        work.result.bytes += size
        return others, files

    def _is_stripped(self, path: str) -> bool:
        """Whether what a directory holds is on the way to what is extracted, at most."""
        return self._strip is not None and len(path.split("\\")) * bool(path) < self._strip

    def _note(self, directories: list[tuple[str, ImageEntry, Location]]) -> None:
        for path, entry, _ in directories:
            if entry.file_id in self._seen:
                raise CorruptImageError(errno.EBADMSG, "a directory has two names, or lies in itself", path)
            self._seen.add(entry.file_id)

    def _write_entries(
        self,
        path: str,
        entries: list[tuple[str, ImageEntry]],
        location: Location,
        files: Iterable[tuple[int, bytes]] = (),
    ) -> list[tuple[str, ImageEntry, Location]]:
        """Make the entries of one directory; returns those that are directories themselves, and where they lie.

        ``files`` are others of the directory, as IDs and names on the host, that need nothing but to be written.
        """
        work = self._work
        below: list[tuple[str, ImageEntry, Location]] = []
        directories: list[Item] = []
        batch = list(files)
        fd = work.directories.enter(location)
        is_stripped = self._is_stripped(path)
        for name, entry in entries:
            work.cancel.raise_if_cancelled()
            inner = f"{path}\\{name}" if path else name
            work.usage.add_entry(inner)
            if self._exclude and self._exclude.match(inner, entry.is_directory):
                work.result.excluded += 1
                continue
            if is_stripped:
                if entry.is_directory:
                    below.append((inner, entry, ()))
                continue
            item = self._item(inner, name, entry, location, fd)
            if self._is_link(item):
                self._note_link(item)
                continue
            if entry.is_directory:
                directories.append(item)
                below.append((inner, entry, (*location, item.name)))
                self._note_metadata(item, None)
                continue
            first = self._finisher.first_name(item)
            if first is item:
                work.usage.add_content(inner, entry.size)
                batch.append((entry.file_id, item.name))
                work.result.bytes += entry.size
                if work.existing == "skip":
                    work.sizes[entry.file_id] = entry.size
            self._note_metadata(item, first)
        for item in directories:
            work.directories.make(item.name)
            self._finisher.add_directory(item)
        work.result.files += len(batch)
        work.result.directories += len(directories)
        where = Place(path, work.directories.path(location))
        for start in range(0, len(batch), _BATCH):
            work.writers.submit(fd, batch[start : start + _BATCH], where)
        return below

    def _item(self, path: str, name: str, entry: ImageEntry, location: Location, fd: int) -> Item:
        check_name(name, path)
        outside = host_name(name, fd)
        renamed = outside != name.encode("utf-8", "surrogatepass")
        if renamed:
            self._work.result.renamed[path] = os.fsdecode(b"/".join((*location, outside)))
        return Item(path, entry, location, outside, renamed)

    def _note_metadata(self, item: Item, first: Item | None) -> None:
        """Write to the sidecar, and count what will be lost and what streams will take."""
        work = self._work
        if work.sidecar is None and work.metadata is None:
            if first is None or first is item:
                work.losses.add_plain(item.entry)
            return
        if first is None or first is item:
            work.usage.add_streams(item.path, checked_streams(work.image, item.path, item.entry))
        if work.sidecar is not None:
            local = os.fsdecode(b"/".join((*item.directory, item.name)))
            work.sidecar.add(work.image, item.path, item.entry, local, first.path if first else None)

    # ---- symbolic links ----

    def _is_link(self, item: Item) -> bool:
        """Whether the entry becomes a link of the host, which is made when all names are known."""
        work, entry = self._work, item.entry
        tags = (SYMBOLIC_LINK, MOUNT_POINT) if work.rebase else (SYMBOLIC_LINK,)
        keeps = work.metadata is not None and work.metadata.keeps_reparse_points
        if keeps or not work.symlinks or entry.reparse_tag not in tags:
            return False
        data = work.image.reparse_data(entry)
        target = target_inside(data, len(item.directory)) if entry.reparse_tag == SYMBOLIC_LINK else None
        parts = target_from_root(data, item.path) if target is None and work.rebase else None
        inside = parts is not None and self._location_of(parts) is not None
        if (target is None and not inside) or (entry.is_directory and work.image.listdir(entry)):
            work.result.unresolved_links.append(item.path)
            return False
        self._finisher.add_link(
            item, (lambda: target) if target is not None else (lambda: self._rebased(item, parts or []))
        )
        return True

    def _note_link(self, item: Item) -> None:
        if self._work.sidecar is not None:
            first = self._finisher.first_name_of(item.entry)
            self._note_metadata(item, first)

    def _rebased(self, item: Item, parts: list[str]) -> str:
        return relative_target(item, self._location_of(parts) or ())

    def _location_of(self, parts: list[str]) -> Location | None:
        """Where a path of the image lies below the destination, by what is known so far; None: not below it."""
        path = self._spelling.path("\\".join(parts))
        if self._strip is None:
            if self._base and path != self._base and not path.startswith(self._base + "\\"):
                return None
            start = len(self._base.split("\\")) if self._base else 0
        else:
            start = self._strip
        names = path.split("\\") if path else []
        location = []
        for at in range(start, len(names)):
            renamed = self._work.result.renamed.get("\\".join(names[: at + 1]))
            whole = names[at].encode("utf-8", "surrogatepass")
            location.append(os.fsencode(renamed).rpartition(b"/")[2] if renamed else whole)
        return tuple(location)
