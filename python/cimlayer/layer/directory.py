"""The files of a layer that lie outside its image.

Names inside a layer are compared without regard to case, whatever the file system does. Links are never followed:
what a layer brings, or somebody plants beside it, cannot reach out of its directory.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cimfs_ext.names import upcase_key
from cimlayer.host.opendirectory import OpenDirectory, sync_directory

_NO_DIRECTORY = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DRAFT = re.compile(r"(.+)\.tmp|\.(.+)\.[0-9a-f]{16}")  # as `write` here and the disks name theirs


class LayerDirectory:
    """One layer directory; remembers what was created in it, so that a failed import can take it back."""

    __slots__ = ("_created", "_made_root", "root")

    def __init__(self, root: Path) -> None:
        """``root`` need not exist until something is created."""
        self.root = root
        self._created: list[str] = []  # backslashed paths
        self._made_root = False

    def find(self, relative: str) -> Path | None:
        """The file or directory of that backslashed path, in whatever case it is spelled; None if it is missing."""
        directory, _, name = relative.rpartition("\\")
        with suppress(FileNotFoundError, NotADirectoryError), self._opened(directory) as parent:
            found = parent.spelling(name)
            return None if found is None else parent.path / found
        return None

    def names(self, relative: str) -> list[str]:
        """The names in a directory."""
        with self._opened(relative) as directory:
            return directory.names()

    def open(self, relative: str) -> BinaryIO:
        """A file, opened for reading; FileNotFoundError names the path that was looked for."""
        with self._parent_of(relative) as (parent, name):
            return parent.open(name)

    def make_directory(self, relative: str = "") -> Path:
        """The directory of that path, made with those above it if it is missing."""
        with self._opened(relative, make=True) as directory:
            return directory.path

    def path_for(self, name: str) -> Path:
        """Where a new file goes that lies directly in the layer directory: an older one of that name is removed."""
        with self._place_for(name):
            return self.root / name

    def create(self, relative: str) -> io.FileIO:
        """A new file, opened for `write_through`; an older one of that path is removed."""
        with self._place_for(relative) as (parent, name):
            return parent.create(name)

    def write(self, relative: str, data: bytes) -> None:
        """Make a file, or replace its content: the old file stays until the new one is complete."""
        if self.find(relative) is None:
            with self.create(relative) as file:
                write_through(file, data)
            return
        temporary = f"{relative}.tmp"
        with self.create(temporary) as file:
            write_through(file, data)
        with self._parent_of(relative) as (parent, name), self._parent_of(temporary) as (other, draft):
            other.move(draft, parent, name)

    def move(self, relative: str, target: str) -> None:
        """Give a file another path."""
        with self._parent_of(relative) as (source, name), self._place_for(target) as (parent, new_name):
            source.move(name, parent, new_name)

    def link(self, target: str, relative: str) -> None:
        """One more name for a file; a copy where the file system knows no hard links."""
        with self._parent_of(target) as (source, old_name), self._place_for(relative) as (parent, name):
            try:
                source.link(old_name, parent, name)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                    raise
                with source.open(old_name) as old, parent.create(name) as file:
                    write_through(file, old.read())

    def undo(self) -> None:
        """Remove what was created here, as far as it is still there; never raises for what is gone."""
        for relative in reversed(self._created):
            with suppress(OSError), self._parent_of(relative) as (parent, name):
                parent.remove(name)
        if self._made_root:
            with suppress(OSError):
                self.root.rmdir()
        self._created.clear()
        self._made_root = False

    def clear(self, relatives: Iterable[str]) -> None:
        """Remove the files of these paths, and drafts of them, as far as they are there; no directory."""
        if not self.root.exists():
            return
        keys = defaultdict(set)
        for relative in relatives:
            directory, _, name = relative.rpartition("\\")
            keys[directory].add(upcase_key(name))
        for directory, names in keys.items():
            try:
                with self._opened(directory) as opened:
                    _clear(opened, names)
            except OSError as error:
                if error.errno not in _NO_DIRECTORY:
                    raise

    def sync(self) -> None:
        """Wait until what was created here is on the disk, with the names that lead to it."""
        above = {""}
        for relative in self._created:
            with suppress(FileNotFoundError), self._parent_of(relative) as (parent, name):
                if not parent.is_directory(name):
                    parent.sync(name)
            above.update(_directories_above(relative))
        for path in sorted(above):
            with self._opened(path) as directory:
                directory.sync()
        sync_directory(self.root.parent)

    @contextmanager
    def _opened(self, relative: str, *, make: bool = False) -> Iterator[OpenDirectory]:
        """The directory of that path, found from the root step by step."""
        if make and not self.root.is_dir():
            self._made_root = True  # noted before it is made: an interrupt may come in between
            self.root.mkdir()
        done: list[str] = []
        with ExitStack() as stack:
            directory = stack.enter_context(OpenDirectory(self.root))
            for component in relative.split("\\") if relative else ():
                done.append(component)
                name = directory.spelling(component)
                if name is None:
                    if not make:
                        raise _missing(self.root.joinpath(*done))
                    name = component
                    self._created.append("\\".join(done))
                    directory.make_directory(name)
                directory = stack.enter_context(OpenDirectory(directory.path / name, directory))
            yield directory

    @contextmanager
    def _parent_of(self, relative: str) -> Iterator[tuple[OpenDirectory, str]]:
        """The directory of an entry that is there, and how the entry is spelled in it."""
        directory, _, name = relative.rpartition("\\")
        with self._opened(directory) as parent:
            found = parent.spelling(name)
            if found is None:
                raise _missing(self.root.joinpath(*relative.split("\\")))
            yield parent, found

    @contextmanager
    def _place_for(self, relative: str) -> Iterator[tuple[OpenDirectory, str]]:
        """The directory of an entry that is to be made, and its name; an older entry is removed."""
        directory, _, name = relative.rpartition("\\")
        with self._opened(directory, make=True) as parent:
            existing = parent.spelling(name)
            if existing is not None:
                parent.remove(existing)
            self._created.append(relative)
            yield parent, name


def write_through(file: io.FileIO, data: bytes | memoryview) -> None:
    """Write all of it, and name the file if that fails.

    Without a buffer: what waits in one is written by a process that is forked off, too, when that ends, and a full disk
    is an error once more when the file is closed.
    """
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        if isinstance(file.name, str):  # a temporary file has none
            error.filename = error.filename or file.name
        raise


def _clear(directory: OpenDirectory, keys: set[bytes]) -> None:
    for name in directory.names():
        draft = _DRAFT.fullmatch(name)
        final = (draft[1] or draft[2]) if draft else name
        if upcase_key(final) in keys and not directory.is_directory(name):
            directory.remove(name)


def _directories_above(relative: str) -> Iterator[str]:
    components = relative.split("\\")
    return ("\\".join(components[:count]) for count in range(1, len(components)))


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
