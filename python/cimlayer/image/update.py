"""Changes to an image: a new one beside it, or in its place."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cimfs_ext.builder import LayerBuilder
from cimfs_ext.entries import ImageEntry
from cimfs_ext.image import ImageWriter
from cimfs_ext.names import upcase_key
from cimfs_ext.reader import ImageReader
from cimlayer.errors import FormatError, ImagePermissionError, PathNotFoundError
from cimlayer.events import CancellationToken
from cimlayer.formats.fileinfo import NO_ATTACHMENTS, FileBasicInfo, creation_time, filetime_from_ns
from cimlayer.host.interrupts import deferred
from cimlayer.image.entrynames import shown
from cimlayer.image.files import ImageDirectory
from cimlayer.image.folder import FolderSource
from cimlayer.image.forking import limits_named, name_beside
from cimlayer.image.locking import open_patiently
from cimlayer.image.meter import Meter
from cimlayer.image.patterns import Patterns
from cimlayer.image.placing import Placement
from cimlayer.image.stores import metadata_of_folder
from cimlayer.limits import DEFAULT_LIMITS, Limits

_DIRECTORY = 0x10
_PIECE = 1 << 20
_MOVED = "cimlayer-moved"  # the name of what gets its own name back in another case


@dataclass(slots=True, frozen=True)
class Change:
    """One operation of :func:`update_image`.

    ``add``: ``source`` is a file or folder of the host, which becomes ``target`` in the image; a folder is merged into
    a directory that is there. ``delete``: ``target``, with all that it holds; with ``force`` it may be missing.
    ``rename``: ``source`` in the image becomes ``target``.
    """

    kind: Literal["add", "delete", "rename"]
    target: str
    source: str = ""
    force: bool = False


@dataclass(slots=True, frozen=True)
class Update:
    """What :func:`update_image` did: entries and bytes of files that were added, things deleted and renamed."""

    added: int
    bytes: int
    deleted: int
    renamed: int
    warnings: tuple[str, ...] = ()


def parse_changes(lines: Iterable[str], where: str = "") -> list[Change]:
    """The changes in lines as ``wimlib-imagex update`` takes them; FormatError names the line of ``where``.

    ``add SOURCE TARGET``, ``delete [--force] [--recursive] PATH``, ``rename SOURCE TARGET``; words may be quoted, lines
    that begin with ``#`` are comments.
    """
    changes = []
    for number, line in enumerate(lines, 1):
        words = shlex.shlex(line.strip(), posix=True, punctuation_chars="")
        words.whitespace_split, words.escape, words.commenters = True, "", ""
        if line.lstrip().startswith("#"):
            continue
        try:
            change = _change(list(words))
        except ValueError as error:
            raise FormatError(str(error), f"{where} line {number}".strip()) from error
        if change is not None:
            changes.append(change)
    return changes


def _change(words: list[str]) -> Change | None:
    if not words:
        return None
    verb, *rest = words
    options = {word for word in rest if word.startswith("--")}
    paths = [word for word in rest if word not in options]
    if verb not in ("add", "delete", "rename"):
        raise ValueError(f"no such command: {verb} (add, delete, rename)")
    if unknown := options - ({"--force", "--recursive"} if verb == "delete" else set()):
        raise ValueError(f"{verb} has no option {min(unknown)}")
    if len(paths) != (1 if verb == "delete" else 2) or not all(paths):
        raise ValueError("delete takes a path" if verb == "delete" else f"{verb} takes a source and a target")
    if verb == "delete":
        return Change("delete", paths[0], force="--force" in options)
    return Change("add" if verb == "add" else "rename", paths[1], paths[0])


def update_image(
    image_path: str | os.PathLike[str],
    changes: Iterable[Change],
    *,
    output: str | os.PathLike[str] | None = None,
    sync: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    lock_timeout: float = 0,
    cancel: CancellationToken | None = None,
) -> Update:
    """Make the changes to an image, one after the other: in a fork of it, ``output``, or in its place.

    All of them are made or none: what fails or is interrupted leaves the image as it was, and no file behind. Only what
    is added is written; what is deleted stays in the region files, which the changed image goes on using. Paths in the
    image may have slashes or backslashes, and ignore case. What ``add`` takes of the host is what
    :func:`~cimlayer.create_image` takes of a folder.

    FormatError names an entry that an image cannot hold, PathNotFoundError a path that is not there, ValueError is for
    an ``output`` in another directory, and for an image in place of which others are forked; LimitError,
    ImageExistsError, ImageBusyError and OperationCancelledError are those of :func:`~cimlayer.create_image`.
    """
    path = Path(os.path.abspath(image_path))
    cancel = CancellationToken(cancel)
    time = creation_time(False)
    new_path = path if output is None else Path(os.path.abspath(output))
    name_beside(new_path, path)

    def open_image() -> ImageWriter:
        return ImageWriter(path.parent, path.name, None if output is None else new_path.name, sync=sync, time=time)

    with (
        deferred(cancel),
        limits_named(new_path.name),
        ImageReader(path) as before,
        open_patiently(open_image, path.parent, lock_timeout, cancel) as image,
    ):
        if output is None:
            _check_not_forked(path, before)
        builder = LayerBuilder(
            image, time=time, max_files=limits.files, max_bytes=limits.bytes, max_path_depth=limits.path_depth
        )
        update = _Update(before, image, builder, Meter(path.name, None, cancel))
        for change in changes:
            cancel.raise_if_cancelled()
            update.make(change)
        image.close_stream()
        image.commit()
        return update.done()


def _check_not_forked(path: Path, image: ImageReader) -> None:
    own = image.region_sets[-1].set_id
    if forks := [name for name in ImageDirectory(path.parent).users(own) if name != path.name]:
        raise ValueError(f"{path}: CIMs are forked from it: {', '.join(forks)}; update it into another CIM")


class _Merging(Placement):
    """Nothing that is added takes the place of a directory, and no directory that of a file."""

    def __init__(self, below: str, check: Callable[[str, bool], None]) -> None:
        super().__init__(Patterns(), case_rename=False, skip_special=False, below=below)
        self._check = check

    def place(self, path: str, directory: bool, name: str, offset: int | None, unsuitable: str | None) -> str | None:
        """As of :class:`Placement`."""
        placed = super().place(path, directory, name, offset, unsuitable)
        if placed is not None:
            self._check(placed, directory)
        return placed


class _Update:
    """One update. ``before`` is the image that it began with, which alone can be listed."""

    def __init__(self, before: ImageReader, image: ImageWriter, builder: LayerBuilder, meter: Meter) -> None:
        self._before = before
        self._image = image
        self._builder = builder
        self._meter = meter
        self._changed: list[bytes] = []  # what is no longer as it was before, with all that is below, upcased
        self._added = self._bytes = self._deleted = self._renamed = 0
        self._warnings: list[str] = []

    def done(self) -> Update:
        return Update(self._added, self._bytes, self._deleted, self._renamed, tuple(self._warnings))

    def make(self, change: Change) -> None:
        target = _inside(change.target)
        if change.kind == "add":
            self._add(Path(os.path.abspath(change.source)), target)
        elif not target:
            raise ValueError(f"/: the root can be neither deleted nor renamed, nor the target of {change.kind}")
        elif change.kind == "delete":
            self._delete(target, force=change.force)
        else:
            self._rename(_inside(change.source), target)

    # ---- add ----

    def _add(self, source: Path, target: str) -> None:
        is_folder = source.is_dir() and not source.is_symlink()
        head, _, leaf = target.rpartition("\\")
        if is_folder:
            self._check_place(target, True)
            if target and not self._is_directory(target):
                info = FileBasicInfo.at(filetime_from_ns(source.stat().st_mtime_ns), _DIRECTORY)
                self._builder.count(target, 0)
                self._builder.create(target, info, 0, NO_ATTACHMENTS)
                self._added += 1
            folder, below, only = source, target, None
        else:
            source.lstat()
            if not target:
                raise ValueError(f"/: a file cannot take the place of the root: {source}")
            folder, below, only = source.parent, head, (source.name, leaf)
        placement = _Merging(below, self._check_place)
        store, sidecar = metadata_of_folder(folder, "auto")
        adding = FolderSource(folder, self._builder, placement, Patterns(), store, sidecar, self._meter.step, only)
        adding.add()
        self._added += adding.entries
        self._bytes += adding.bytes
        self._warnings += adding.warnings
        self._changed.append(upcase_key(target))

    def _check_place(self, path: str, directory: bool) -> None:
        entry = None if self._is_changed(path) else self._entry_before(path)
        if entry is None or entry.is_directory == directory:
            return
        raise FormatError(f"a {'file' if directory else 'directory'} is there already", shown(path))

    # ---- delete ----

    def _delete(self, target: str, *, force: bool) -> None:
        try:
            self._image.delete_path(target)
        except PathNotFoundError as error:
            if not force:
                raise PathNotFoundError(errno.ENOENT, f"not found in {self._image.name}", shown(target)) from error
        else:
            self._deleted += 1
        self._changed.append(upcase_key(target))

    # ---- rename ----

    def _rename(self, source: str, target: str) -> None:
        if not source:
            raise ValueError("/: the root can be neither deleted nor renamed")
        if source == target:
            return
        if not self._is_changed(source) and not self._before.exists(source):
            raise PathNotFoundError(errno.ENOENT, f"not found in {self._image.name}", shown(source))
        one, other = upcase_key(source), upcase_key(target)
        if one != other and _lies_in(other, one):
            raise ValueError(f"{shown(source)}: cannot become a part of itself: {shown(target)}")
        if one == other:
            head, separator, _ = source.rpartition("\\")
            between = f"{head}{separator}{_MOVED}"
            self._move(source, between)
            self._changed.append(one)
            self._move_links(between, target, self._entry_before(source))
        else:
            if self._is_directory(target):
                raise FormatError("a directory is there already", shown(target))
            self._move(source, target)
        self._changed += [one, other]
        self._renamed += 1

    def _move(self, source: str, target: str) -> None:
        entry = self._entry_before(source) if not self._is_changed(source) else None
        self._move_links(source, target, entry)

    def _move_links(self, source: str, target: str, entry: ImageEntry | None) -> None:
        """By hard links. ``entry`` is what was there before, None for what has come since, which can only be a file."""
        if entry is not None and entry.is_directory:
            self._move_directory(source, target, entry)
        else:
            try:
                self._image.create_hard_link(target, source)
            except ImagePermissionError as error:
                reason = "a directory that was changed before: rename it in an update of its own"
                raise FormatError(reason, shown(source)) from error
            except PathNotFoundError as error:
                reason = f"cannot be renamed to {shown(target)}: either is not there, or its directory"
                raise PathNotFoundError(errno.ENOENT, reason, shown(source)) from error
        self._image.delete_path(source)

    def _move_directory(self, source: str, target: str, directory: ImageEntry) -> None:
        if any(_lies_in(changed, upcase_key(source)) for changed in self._changed):
            raise FormatError(
                "something in this directory was changed before: rename it in an update of its own", shown(source)
            )
        self._make_directory(target, directory)
        for path, entry in self._before.walk(directory):
            self._meter.step(self._added, self._bytes)
            if entry.is_directory:
                self._make_directory(f"{target}\\{path}", entry)
            else:
                self._image.create_hard_link(f"{target}\\{path}", f"{source}\\{path}")

    def _make_directory(self, path: str, entry: ImageEntry) -> None:
        self._image.create_file(
            path,
            attributes=entry.attributes,
            creation_time=entry.creation_time,
            last_write_time=entry.last_write_time,
            change_time=entry.change_time,
            last_access_time=entry.last_access_time,
            security_descriptor=self._before.security_descriptor(entry),
            reparse_data=self._before.reparse_data(entry),
            extended_attributes=self._before.extended_attributes(entry),
        )
        for stream in self._before.streams(entry):
            self._image.create_alternate_stream(f"{path}:{stream.name}", stream.size)
            with self._before.open(entry, stream=stream.name) as content:
                while piece := content.read(_PIECE):
                    self._meter.step(self._added, self._bytes)
                    self._image.write(piece)

    # ---- what was there before ----

    def _entry_before(self, path: str) -> ImageEntry | None:
        return self._before.stat(path) if self._before.exists(path) else None

    def _is_changed(self, path: str) -> bool:
        return any(_lies_in(upcase_key(path), changed) for changed in self._changed)

    def _is_directory(self, path: str) -> bool:
        entry = None if self._is_changed(path) else self._entry_before(path)
        return entry is not None and entry.is_directory


def _inside(path: str) -> str:
    """A path in the image with backslashes, from the root on."""
    return path.replace("/", "\\").strip("\\")


_SEPARATOR = upcase_key("\\")


def _lies_in(path: bytes, directory: bytes) -> bool:
    """Whether an upcased path is another one, or below it; everything is below the root."""
    return not directory or path == directory or path.startswith(directory + _SEPARATOR)
