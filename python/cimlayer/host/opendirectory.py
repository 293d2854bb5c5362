"""An open directory: operations take place in it, wherever its path leads by then.

They use openat(2) and related calls. Where these are missing (Windows), paths are used, and a link planted between a
check and a use is followed; creating one takes a privilege there.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from cimfs_ext.names import upcase_key

_HAS_DIR_FD = {os.open, os.mkdir, os.unlink, os.rmdir, os.rename, os.link, os.stat} <= os.supports_dir_fd
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_TO_SYNC = os.O_RDONLY if _HAS_DIR_FD else os.O_RDWR  # Windows flushes for those alone who may write
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)


class OpenDirectory:
    """One directory; names are those of its own entries."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path, parent: OpenDirectory | None = None) -> None:
        """Open a directory by its path, or as an entry of ``parent``, where links are refused."""
        self.path = path
        self._fd: int | None = None
        if _HAS_DIR_FD:
            flags = _DIRECTORY | (_NO_LINK if parent else getattr(os, "O_CLOEXEC", 0))
            with _naming(path):
                self._fd = os.open(path.name if parent else path, flags, dir_fd=parent._fd if parent else None)
        elif parent is not None and not parent.is_directory(path.name):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))

    def __enter__(self) -> OpenDirectory:
        """The directory itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        if self._fd is not None:
            os.close(self._fd)

    def names(self) -> list[str]:
        """The names of all entries."""
        with _naming(self.path):
            return os.listdir(self.path if self._fd is None else self._fd)

    def spelling(self, name: str) -> str | None:
        """The spelling of the entry with this name in any case; None if there is none. Links are refused."""
        found = name
        status = self._status(name)
        if status is None:
            key = upcase_key(name)
            spelled = next((entry for entry in self.names() if upcase_key(entry) == key), None)
            status = None if spelled is None else self._status(spelled)
            if spelled is None or status is None:
                return None
            found = spelled
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, "a symbolic link inside a layer directory", str(self.path / found))
        return found

    def _status(self, name: str) -> os.stat_result | None:
        try:
            with _naming(self.path, name):
                return os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_directory(self, name: str) -> bool:
        """Whether the entry exists and is a directory, not a link to one."""
        status = self._status(name)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def make_directory(self, name: str) -> None:
        """Create a directory."""
        with _naming(self.path, name):
            os.mkdir(self._at(name), dir_fd=self._fd)

    def create(self, name: str) -> io.FileIO:
        """A new file, opened for writing, unbuffered."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
        with _naming(self.path, name):
            file = cast("io.FileIO", _file(os.open(self._at(name), flags, 0o666, dir_fd=self._fd), "wb", 0))
        file.name = str(self.path / name)  # it has but the descriptor's number
        return file

    def open(self, name: str) -> BinaryIO:
        """A regular file, opened for reading; never waits for a pipe in its place."""
        with _naming(self.path, name):
            descriptor = os.open(self._at(name), os.O_RDONLY | _NO_LINK | _NO_WAIT, dir_fd=self._fd)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file inside a layer directory", str(self.path / name))
        except BaseException:
            os.close(descriptor)
            raise
        return cast("BinaryIO", _file(descriptor, "rb"))

    def remove(self, name: str) -> None:
        """Remove a file or an empty directory."""
        remove = os.rmdir if self.is_directory(name) else os.unlink
        with _naming(self.path, name):
            remove(self._at(name), dir_fd=self._fd)

    def move(self, name: str, to: OpenDirectory, new_name: str) -> None:
        """Move a file; an existing file of that name is replaced."""
        with _naming(self.path, name, to.path / new_name):
            os.replace(self._at(name), to._at(new_name), src_dir_fd=self._fd, dst_dir_fd=to._fd)

    def link(self, name: str, to: OpenDirectory, new_name: str) -> None:
        """Create a hard link to a file; links are not followed."""
        with _naming(self.path, name, to.path / new_name):
            os.link(self._at(name), to._at(new_name), src_dir_fd=self._fd, dst_dir_fd=to._fd, follow_symlinks=False)

    def sync(self, name: str = "") -> None:
        """Wait until a file's content, or the directory's names, are on disk."""
        with _naming(self.path, name):
            if name:
                descriptor = os.open(self._at(name), _TO_SYNC | _NO_LINK | _NO_WAIT, dir_fd=self._fd)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            elif self._fd is not None:
                os.fsync(self._fd)

    def _at(self, name: str) -> str | Path:
        return self.path / name if self._fd is None else name


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on disk."""
    with OpenDirectory(path) as directory:
        directory.sync()


@contextmanager
def _naming(directory: Path, name: str = "", new_path: Path | None = None) -> Iterator[None]:
    """Errors name the whole path: calls on an open directory know an entry's name at most."""
    try:
        yield
    except OSError as error:
        error.filename = str(directory / name)
        if new_path is not None:
            error.filename2 = str(new_path)
        raise


def _file(descriptor: int, mode: str, buffering: int = -1) -> IO[Any]:
    """The file of a descriptor, which is closed if there can be none."""
    try:
        return os.fdopen(descriptor, mode, buffering)
    except BaseException:
        os.close(descriptor)
        raise
