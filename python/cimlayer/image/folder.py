"""A folder of the host as a tar, so that there is one way into an image."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from cimfs_ext.names import upcase_key
from cimlayer.errors import FormatError
from cimlayer.host.paths import errors_name
from cimlayer.image.directories import Directories, Location
from cimlayer.image.kinds import value_kinds

_PIECE = 1 << 20
_MOST_REGIONS = 1 << 16  # of data in a file; with more, its holes are read as data
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def folder_as_tar(folder: Path) -> Iterator[bytes]:
    """The entries of a folder, in the order of their names.

    Each directory is opened from the one above it, so that it may lie deeper than a path can be long. FormatError and
    OSError are those of :func:`~cimlayer.create_image`.
    """
    links: dict[tuple[int, int], str] = {}
    pending: list[Location] = [()]
    with ExitStack() as stack:
        directories = None
        if sys.platform != "win32":
            directories = stack.enter_context(Directories(folder, os.fsencode(folder)))
        while pending:
            location = pending.pop()
            path = os.fsdecode(b"/".join(location))
            fd = directories.enter(location) if directories else None
            below = []
            for entry in _sorted_entries(folder / path, fd):
                inner = f"{path}/{entry.name}" if path else entry.name
                try:
                    yield from _entry_as_tar(inner, entry, fd, links)
                except OSError as error:
                    error.filename = str(folder / inner)
                    raise
                if entry.is_dir(follow_symlinks=False):
                    below.append((*location, os.fsencode(entry.name)))
            pending.extend(reversed(below))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _sorted_entries(directory: Path, fd: int | None) -> list[os.DirEntry[str]]:
    """What is in a directory. With ``fd``, which is the directory opened, the paths of entries are relative to it."""
    with errors_name(directory), os.scandir(directory if fd is None else fd) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    seen: dict[bytes, str] = {}
    for entry in entries:
        if ":" in entry.name:
            raise FormatError("a colon in a name, which Windows does not have", str(directory / entry.name))
        other = seen.setdefault(upcase_key(entry.name), entry.name)
        if other != entry.name:
            raise FormatError(f"{other!r} and {entry.name!r} are one name for Windows", str(directory))
    return entries


def _entry_as_tar(
    path: str, entry: os.DirEntry[str], fd: int | None, links: dict[tuple[int, int], str]
) -> Iterator[bytes]:
    """An entry with its content; ``links`` are the first names of files that have several."""
    status = entry.stat(follow_symlinks=False)
    info = _header(path, entry, fd, status)
    if info.isreg() and status.st_nlink > 1:
        first = links.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
    if not info.isreg():
        yield _encoded(info)
        return
    with open(entry.path, "rb", opener=lambda name, _: os.open(name, _OPEN, dir_fd=fd)) as file:
        regions = _regions(file, info.size)
        start = b""
        if regions != _whole(info.size):
            start = _sparse_map(regions)
            info.pax_headers = {
                **info.pax_headers,
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.realsize": str(info.size),
            }
            info.size = len(start) + sum(size for _, size in regions)
        yield _encoded(info)
        yield start
        yield from _content(file, regions, entry.path)
        yield bytes(-info.size % tarfile.BLOCKSIZE)


def _encoded(info: tarfile.TarInfo) -> bytes:
    try:
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
    except UnicodeEncodeError as error:
        name = os.fsencode(info.name).decode("utf-8", "backslashreplace")
        raise FormatError("a name or link target that is not UTF-8", name) from error


def _header(path: str, entry: os.DirEntry[str], fd: int | None, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    records: dict[str, str] = {}
    for kind in value_kinds():
        if kind.of_host is not None:
            records |= kind.of_host(status, _leads_to_directory(entry))
    info.pax_headers = records
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(entry.path, dir_fd=fd)
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISREG(status.st_mode):
        info.size = status.st_size
    else:
        raise OSError(errno.EINVAL, "neither file nor directory nor symbolic link", path)
    return info


def _leads_to_directory(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a directory, or a link to one; a link that leads nowhere is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _whole(size: int) -> list[tuple[int, int]]:
    return [(0, size)] if size else []


def _regions(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Where a file has data, as offsets and sizes in bytes; everywhere if the filesystem does not tell."""
    if sys.platform == "win32":
        return _whole(size)
    found: list[tuple[int, int]] = []
    end = 0
    with contextlib.suppress(OSError):
        while end < size and len(found) < _MOST_REGIONS:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return found  # nothing but a hole
            if start >= size:
                return found
            end = min(os.lseek(file.fileno(), start, os.SEEK_HOLE), size)
            found.append((start, end - start))
        if end >= size:
            return found
    return _whole(size)


def _sparse_map(regions: list[tuple[int, int]]) -> bytes:
    """What stands before the data of a sparse file (GNU tar, "Storing Sparse Files", version 1.0)."""
    text = "".join(f"{number}\n" for number in (len(regions), *itertools.chain(*regions))).encode()
    return text + bytes(-len(text) % tarfile.BLOCKSIZE)


def _content(file: BinaryIO, regions: list[tuple[int, int]], path: str) -> Iterator[bytes]:
    for start, size in regions:
        file.seek(start)
        left = size
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise OSError(errno.EIO, "the file became shorter while it was read", path)
            left -= len(piece)
            yield piece
