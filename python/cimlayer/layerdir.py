"""The files of a layer that lie outside its image.

Names inside a layer are compared without regard to case, whatever the file system does. Links are never followed:
what a layer brings cannot reach out of its directory.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from cimfs_ext.names import upcase_key


class LayerDirectory:
    """One layer directory; remembers what was created in it, so that a failed import can take it back."""

    __slots__ = ("_created", "root")

    def __init__(self, root: Path) -> None:
        """``root`` need not exist until something is created."""
        self.root = root
        self._created: list[Path] = []

    def find(self, relative: str) -> Path | None:
        """The file or directory of that backslashed path, in whatever case it is spelled; None if it is missing."""
        found = self.root
        for component in relative.split("\\"):
            inner = _child(found, component)
            if inner is None:
                return None
            found = inner
        return found

    def read(self, relative: str) -> bytes:
        """All bytes of a file; FileNotFoundError names the path that was looked for."""
        found = self.find(relative)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._spelled(relative)))
        return found.read_bytes()

    def make_directory(self, relative: str = "") -> Path:
        """The directory of that path, made with those above it if it is missing."""
        if not self.root.is_dir():
            self._create_directory(self.root)
        found = self.root
        for component in relative.split("\\") if relative else ():
            inner = _child(found, component)
            if inner is None:
                inner = found / component
                self._create_directory(inner)
            elif not inner.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(inner))
            found = inner
        return found

    def path_for(self, relative: str) -> Path:
        """Where a new file of that path goes: its directory is made, an older file of that name is removed."""
        directory, _, name = relative.rpartition("\\")
        parent = self.make_directory(directory)
        existing = _child(parent, name)
        if existing is not None:
            existing.unlink()
        path = parent / name
        self._created.append(path)
        return path

    def create(self, relative: str) -> BinaryIO:
        """A new file, opened for writing."""
        path = self.path_for(relative)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        return os.fdopen(os.open(path, flags, 0o666), "wb")

    def write(self, relative: str, data: bytes) -> None:
        """Make a file, or replace its content: the old file stays until the new one is complete."""
        existing = self.find(relative)
        if existing is None:
            with self.create(relative) as file:
                file.write(data)
            return
        temporary = existing.with_name(existing.name + ".tmp")
        self._created.append(temporary)
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(existing)

    def link(self, target: str, relative: str) -> None:
        """One more name for a file; a copy where the file system knows no hard links."""
        source = self.find(target)
        if source is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._spelled(target)))
        path = self.path_for(relative)
        try:
            os.link(source, path, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            path.write_bytes(source.read_bytes())

    def undo(self) -> None:
        """Remove what was created here, as far as it is still there; never raises for what is gone."""
        for path in reversed(self._created):
            with suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink()
        self._created.clear()

    def sync(self) -> None:
        """Wait until what was created here is on the disk."""
        for path in self._created:
            if os.name == "posix" or path.is_file():
                with suppress(FileNotFoundError):
                    _sync(path)
        if self._created and os.name == "posix":
            _sync(self.root.parent)

    def _create_directory(self, path: Path) -> None:
        path.mkdir()
        self._created.append(path)

    def _spelled(self, relative: str) -> Path:
        return self.root.joinpath(*relative.split("\\"))


def _child(directory: Path, name: str) -> Path | None:
    """The entry of a directory by name, without regard to case; a symbolic link is refused."""
    exact = directory / name
    if not os.path.lexists(exact):
        key = upcase_key(name)
        try:
            exact = directory / next(entry for entry in os.listdir(directory) if upcase_key(entry) == key)
        except (StopIteration, FileNotFoundError, NotADirectoryError):
            return None
    if exact.is_symlink():
        raise OSError(errno.ELOOP, "a symbolic link inside a layer directory", str(exact))
    return exact


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
