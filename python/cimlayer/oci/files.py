"""The files of a folder or an archive by name.

An uncompressed archive is read where it lies. What is compressed, or can be read only once, is unpacked to one
temporary file first: the documents of an archive may be anywhere in it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import posixpath
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from cimfs_ext.tarindex import FILE, HARD_LINK, SYMLINK, TarIndex
from cimlayer.blobs.arrival import PIECE, open_source
from cimlayer.blobs.decompression import check_tar_start, is_compressed
from cimlayer.blobs.streams import LayerStream
from cimlayer.errors import FormatError, LimitError
from cimlayer.events import CancellationToken
from cimlayer.limits import DEFAULT_LIMITS, MOST_BYTES, Limits

_HEAD = 512  # bytes that say what a file is
_LONGEST_LINK_CHAIN = 8
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_FORBIDDEN = "\\\0:" if os.name == "nt" else "\\\0"  # a colon is a drive or a stream there, and part of crane's names
_SHOWN = 100  # characters of untrusted text in a message


class Files(Protocol):
    """Files that can be read, named by paths with slashes; one at the beginning counts nothing."""

    name: str
    cancel: CancellationToken  # whoever reads looks at it

    def size(self, path: str) -> int | None:
        """Bytes of a regular file; None if it is not there."""

    def top_names(self) -> set[str]:
        """The names on the topmost level."""

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

    def top_names(self) -> set[str]:
        """The names in the directory itself."""
        return {path.name for path in self._root.iterdir()}

    def _place(self, path: str) -> Path:
        parts = path.lstrip("/").split("/")
        if any(part in ("", ".", "..") or any(c in part for c in _FORBIDDEN) for part in parts):
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

    def __init__(self, path: Path, cancel: CancellationToken, unpacked: BinaryIO | None = None) -> None:
        """Read all headers. FormatError for anything but a whole tar; ``unpacked`` is read in place of the path."""
        self.name = str(path)
        self.cancel = cancel
        self._path = path
        self._unpacked = unpacked
        self._lock = threading.Lock()
        with self._opened() as file:
            self._length = file.seek(0, os.SEEK_END)
            self._members = dict(self._headers(file))

    def _opened(self) -> contextlib.AbstractContextManager[BinaryIO]:
        return self._path.open("rb") if self._unpacked is None else contextlib.nullcontext(self._unpacked)

    def _headers(self, file: BinaryIO) -> Iterator[tuple[str, _Member]]:
        for kind, path, link, offset, size in TarIndex(file, self.name):
            self.cancel.raise_if_cancelled()
            name = _normalized(path)
            if kind == SYMLINK:
                yield name, _Member(0, 0, _normalized(posixpath.join(posixpath.dirname(name), link)))
            elif kind == HARD_LINK:
                yield name, _Member(0, 0, _normalized(link))
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
        file = self._path.open("rb", buffering=0) if self._unpacked is None else self._unpacked
        begin, end = member.offset + offset, member.offset + member.size
        return _Section(file, begin, end, None if self._unpacked is None else self._lock)  # type: ignore[return-value]

    def top_names(self) -> set[str]:
        """The names on the topmost level."""
        return {name.partition("/")[0] for name in self._members}

    def _find(self, path: str) -> _Member | None:
        name = _normalized(path)
        for _ in range(_LONGEST_LINK_CHAIN):
            member = self._members.get(name)
            if member is None or member.link is None:
                return member
            name = member.link
        return None


def _normalized(path: str) -> str:
    """A name in an archive: absolute ones, as buildpacks write them, are names like any other."""
    return posixpath.normpath(path.lstrip("/"))


class _Section(io.RawIOBase):
    """A part of a file; with a lock, of one that others read as well."""

    def __init__(self, file: BinaryIO, begin: int, end: int, shared: threading.Lock | None) -> None:
        super().__init__()
        self._file = file
        self._at, self._end = begin, end
        self._shared = shared

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        with self._shared or contextlib.nullcontext():
            self._file.seek(self._at)
            count: int = self._file.readinto(memoryview(buffer)[: self._end - self._at]) or 0  # type: ignore[attr-defined]
        self._at += count
        return count

    def close(self) -> None:
        if self._shared is None:
            self._file.close()
        super().close()


@contextlib.contextmanager
def opened_files(
    source: str | os.PathLike[str], cancel: CancellationToken, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Files]:
    """A folder, or a tar: plain or compressed, in a file or a pipe; ``-`` is standard input.

    OperationCancelledError once ``cancel`` is. ``limits`` bound the ratio of decompression.
    """
    path = Path(source)
    if os.fspath(source) == "-":
        # Without its buffer: a thread that waits for a pipe must not hold a lock that the interpreter's end needs.
        with _unpacked(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer), "standard input", cancel, limits) as file:
            yield TarArchive(Path("standard input"), cancel, file)
        return
    if path.is_dir():
        yield Folder(path, cancel)
        return
    with open_source(path) as stream:
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            head = stream.read(_HEAD)
            stream.seek(0)
            if not is_compressed(head):
                check_tar_start(head, str(path))
                yield TarArchive(path, cancel)
                return
        with _unpacked(stream, str(path), cancel, limits) as file:
            yield TarArchive(path, cancel, file)


@contextlib.contextmanager
def _unpacked(stream: BinaryIO, name: str, cancel: CancellationToken, limits: Limits) -> Iterator[BinaryIO]:
    """A temporary file, without a name where the system can do that, with the plain bytes of a stream."""
    import tempfile  # noqa: PLC0415  few sources need one

    every_layer = replace(limits, bytes=MOST_BYTES)  # each layer is bounded when it is imported
    tar = LayerStream(stream, limits=every_layer, cancel=cancel, name=name)
    with tempfile.TemporaryFile(prefix="cimlayer-", dir=_roomy_directory()) as file:
        piece = memoryview(bytearray(PIECE))
        try:
            while count := tar.readinto(piece):
                file.write(piece[:count])
        except LimitError as error:
            error.layer = name
            raise
        yield file


def _roomy_directory() -> str | None:
    """Where temporary files may be large: what TMPDIR says, else not /tmp, which is often in memory (hier(7))."""
    return None if "TMPDIR" in os.environ or not Path("/var/tmp").is_dir() else "/var/tmp"
