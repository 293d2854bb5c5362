"""An image as a read-only file system of the host, through FUSE (with the optional package mfusepy)."""

from __future__ import annotations

import codecs
import errno
import itertools
import os
import stat
import threading
from collections.abc import Iterable
from typing import Any

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader, StreamReader
from cimlayer.errors import UnsupportedCallError
from cimlayer.formats.fileinfo import unix_nanoseconds
from cimlayer.formats.reparse import SYMBOLIC_LINK
from cimlayer.image.entrynames import target_inside
from cimlayer.image.metadata import attribute_names, attribute_value

_BLOCK = 512  # bytes of those that stat(2) counts
_NAMES = "cimlayer.names"  # how errors of UTF-8 are handled
# Those of libfuse. Nothing that somebody else has named belongs here: a comma in it would begin another option.
_OPTIONS = {"ro": True, "use_ino": True, "fsname": "cimlayer"}


def _handle_names(error: UnicodeError) -> tuple[str | bytes, int]:
    """Half a surrogate pair is a part of a name; bytes that are nothing of UTF-8 are of no name in the image."""
    try:
        return codecs.lookup_error("surrogatepass")(error)
    except UnicodeError:
        return codecs.lookup_error("surrogateescape")(error)


codecs.register_error(_NAMES, _handle_names)


def mount_with_fuse(image_path: str | os.PathLike[str], directory: str | os.PathLike[str]) -> None:
    """Mount an image on an empty directory; return when it is unmounted (``fusermount -u``, Ctrl-C).

    Files have content, times and ``user.cimlayer.*`` attributes as with :func:`~cimlayer.extract`; lookups ignore case.
    Relative symbolic links that stay inside are links; other reparse points, and links with content, appear as the
    files or directories that carry them.

    :class:`~cimlayer.errors.UnsupportedCallError` if FUSE or mfusepy is missing, another OSError if ``directory`` is
    not an empty directory or FUSE cannot mount.
    """
    try:
        import mfusepy  # noqa: PLC0415
    except (ImportError, OSError) as error:
        hint = "mounting needs FUSE, and mfusepy, which the extra 'fuse' of cimlayer brings"
        raise UnsupportedCallError(errno.ENOSYS, f"{hint} ({error})", str(directory)) from error
    if os.listdir(directory):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(directory))
    with ImageReader(image_path) as image:
        place = os.path.abspath(directory)  # which is never taken for an option
        try:
            mfusepy.FUSE(_operations(mfusepy, image), place, errors=_NAMES, foreground=True, **_OPTIONS)
        except RuntimeError as error:
            raise OSError(errno.EIO, f"FUSE cannot mount the image (code {error})", str(directory)) from error


def _operations(mfusepy: Any, image: ImageReader) -> object:
    """The calls of FUSE for an image; ``mfusepy`` is only here when it is needed."""

    handles = itertools.count(1)
    opened: dict[int, tuple[threading.Lock, StreamReader]] = {}

    class Operations(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            entry = image.stat(path)
            target = _target(image, path, entry)
            kind = stat.S_IFREG | 0o444
            if target is not None:
                kind = stat.S_IFLNK | 0o777
            elif entry.is_directory:
                kind = stat.S_IFDIR | 0o555
            return {
                "st_mode": kind,
                "st_ino": entry.file_id,
                "st_nlink": 1,
                "st_size": len(target.encode("utf-8", "surrogatepass")) if target is not None else entry.size,
                "st_blocks": 0 if entry.sparse else -(-entry.size // _BLOCK),  # tar -S skips a file that has none
                "st_mtime": unix_nanoseconds(entry.last_write_time),
                "st_atime": unix_nanoseconds(entry.last_access_time),
                "st_ctime": unix_nanoseconds(entry.change_time),
            }

        def readdir(self, path: str, fh: int) -> Iterable[tuple[str, dict[str, int], int]]:
            directory = image.stat(path).file_id
            inodes = [(".", directory), ("..", directory)]
            inodes += [(entry.name, entry.file_id) for entry in image.listdir(path)]
            return [(name, {"st_ino": inode}, 0) for name, inode in inodes]  # 0 would hide the name

        def readlink(self, path: str) -> str:
            target = _target(image, path, image.stat(path))
            if target is None:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
            return target

        def open(self, path: str, flags: int) -> int:
            """One stream for all reads of an open file: only what one stream reads to its end is checked."""
            handle = next(handles)
            opened[handle] = (threading.Lock(), image.open(path))
            return handle

        def release(self, path: str, fh: int) -> int:
            opened.pop(fh)[1].close()
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            lock, content = opened[fh]
            with lock:
                content.seek(offset)
                return content.read(size) or b""

        def listxattr(self, path: str) -> Iterable[str]:
            return attribute_names(image, image.stat(path))

        def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
            value = attribute_value(image, image.stat(path), name)
            if value is None:
                raise OSError(errno.ENODATA, os.strerror(errno.ENODATA), path)
            return value

    return Operations()


def _target(image: ImageReader, path: str, entry: ImageEntry) -> str | None:
    if entry.reparse_tag != SYMBOLIC_LINK or (entry.is_directory and image.listdir(entry)):
        return None
    return target_inside(image.reparse_data(entry), path.strip("/").count("/"))
