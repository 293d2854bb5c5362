"""The files of a folder or an archive by name; an archive is read where it lies."""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from cimfs_ext.tarindex import FILE, HARD_LINK, SYMLINK, TarIndex
from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken

_LONGEST_LINK_CHAIN = 8
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_SHOWN = 100  # characters of a stranger's text in a message
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"BZ": "bzip2", b"\xfd7": "xz"}


class Files(Protocol):
    """Files that can be read, named by relative paths with slashes."""

    name: str
    cancel: CancellationToken  # whoever reads looks at it

    def size(self, path: str) -> int | None:
        """Bytes of a regular file; None if it is not there."""

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        """The file from a byte on, unbuffered; any number can be open at once, each for one thread."""


class Folder:
    """The files of a directory."""

    def __init__(self, root: Path, cancel: CancellationToken) -> None:
        self.name = str(root)
        self.cancel = cancel
        self._root = root

    def size(self, path: str) -> int | None:
        """Bytes of a regular file; None if it is not there."""
        try:
            status = self._place(path).stat()
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        """The file from a byte on, unbuffered."""
        file = self._place(path).open("rb", buffering=0)
        file.seek(offset)
        return file

    def _place(self, path: str) -> Path:
        parts = path.split("/")
        if any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in parts):
            raise FormatError(f"a file name that may lead out of the image: {path[:_SHOWN]!r}", self.name)
        try:
            os.fsencode(path)
        except UnicodeEncodeError as error:
            raise FormatError(f"a file name that this system cannot have: {path[:_SHOWN]!r}", self.name) from error
        return self._root.joinpath(*parts)


class _Member(NamedTuple):
    """Where a file's bytes lie in the tar, or what other member it stands for."""

    offset: int
    size: int
    link: str | None


class TarArchive:
    """The files of an uncompressed tar; nothing is unpacked."""

    def __init__(self, path: Path, cancel: CancellationToken) -> None:
        """Read all headers. FormatError for anything but a whole, uncompressed tar."""
        self.name = str(path)
        self.cancel = cancel
        self._path = path
        with path.open("rb") as file:
            self._length = os.fstat(file.fileno()).st_size
            compression = _COMPRESSED.get(file.read(2))
            if compression:
                raise FormatError(f"an archive compressed with {compression}: decompress it first", self.name)
            file.seek(0)
            self._members = dict(self._headers(file))

    def _headers(self, file: BinaryIO) -> Iterator[tuple[str, _Member]]:
        for kind, path, link, offset, size in TarIndex(file, self.name):
            self.cancel.raise_if_cancelled()
            name = posixpath.normpath(path)
            if kind == SYMLINK:
                yield name, _Member(0, 0, posixpath.normpath(posixpath.join(posixpath.dirname(name), link)))
            elif kind == HARD_LINK:
                yield name, _Member(0, 0, posixpath.normpath(link))
            elif kind == FILE:
                if size > self._length - offset:
                    raise FormatError("cut inside a file", f"{self.name}: {name}", offset)
                yield name, _Member(offset, size, None)

    def size(self, path: str) -> int | None:
        """Bytes of a regular file, or of that to which a link leads inside the archive; None if it is not there."""
        member = self._find(path)
        return member.size if member is not None else None

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        """The file from a byte on, unbuffered."""
        member = self._find(path)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.name}: {path}")
        offset = min(offset, member.size)
        return _Section(self._path, member.offset + offset, member.size - offset)  # type: ignore[return-value]

    def _find(self, path: str) -> _Member | None:
        name = posixpath.normpath(path)
        for _ in range(_LONGEST_LINK_CHAIN):
            member = self._members.get(name)
            if member is None or member.link is None:
                return member
            name = member.link
        return None


class _Section(io.RawIOBase):
    """A part of a file."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._file.seek(offset)
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        count = self._file.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def open_files(source: str | os.PathLike[str], cancel: CancellationToken) -> Files:
    """A folder, or a tar in a file that can be read at any place. OperationCancelledError once ``cancel`` is."""
    path = Path(source)
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return Folder(path, cancel)
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: an image is read from a folder or a regular file, not from a pipe or a device")
    return TarArchive(path, cancel)
