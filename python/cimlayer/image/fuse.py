"""An image as a read-only file system of the host: answers to the kernel's FUSE client (linux/fuse.h, fuse(4)).

An image never changes, so the kernel may cache every answer. What it asks for every file of a directory is
packed in compiled code (``cimfs_ext/mounted.pyx``); the rest is here.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

from cimfs_ext.mounted import MountedFiles
from cimfs_ext.reader import ImageReader, StreamReader
from cimlayer.host import fusemount
from cimlayer.host.background import fork_into_background
from cimlayer.image.entrynames import target_inside
from cimlayer.image.metadata import attribute_names, attribute_value
from cimlayer.image.streamfiles import StreamFiles
from cimlayer.limits import DEFAULT_LIMITS, Limits


class _Call(IntEnum):
    """FUSE_* of linux/fuse.h."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    GETXATTR = 22
    LISTXATTR = 23
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    BATCH_FORGET = 42
    READDIRPLUS = 44
    LSEEK = 46


_UNANSWERED = {_Call.FORGET, _Call.BATCH_FORGET, _Call.INTERRUPT}

_IN = struct.Struct("=IIQQIIIHH")  # struct fuse_in_header
_OUT = struct.Struct("=IiQ")  # struct fuse_out_header
_INIT_IN = struct.Struct("=IIII")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
_OPEN_OUT = struct.Struct("=QIi")
_READ_IN = struct.Struct("=QQI")  # also for directories
_RELEASE_IN = struct.Struct("=Q")
_XATTR_IN = struct.Struct("=II")
_XATTR_OUT = struct.Struct("=II")
_STATFS_OUT = struct.Struct("=QQQQQIIII24x")
_LSEEK_IN = struct.Struct("=QQII")
_LSEEK_OUT = struct.Struct("=Q")

_VERSION = (7, 31)  # that of Linux 5.4: what comes later is not used
_OLDEST = 23  # minor; Linux 3.15: its replies have the sizes of today
_DO_READDIRPLUS, _PARALLEL_DIROPS, _MAX_PAGES, _CACHE_SYMLINKS = 1 << 13, 1 << 18, 1 << 22, 1 << 23
_NO_OPENDIR_SUPPORT = 1 << 24
_FEATURES = _DO_READDIRPLUS | _PARALLEL_DIROPS | _MAX_PAGES | _CACHE_SYMLINKS | _NO_OPENDIR_SUPPORT
_KEEP_CACHE, _CACHE_DIR = 1 << 1, 1 << 3  # FOPEN_*
_PAGES = 256  # of one read; 1 MiB
_REQUEST = 1 << 16  # bytes; the kernel asks for room for at least 8,192
_WRITE = 4096  # bytes of a write, which never comes

_BLOCK = 512  # bytes
_LONGEST_NAME = 765  # bytes: 255 UTF-16 code units
_LARGEST_XATTR = 1 << 16  # bytes of a value, and of the list of all names (xattr(7))
_LONGEST_XATTR_NAME = 255  # bytes
_THREADS = 4  # one reads from a slow disk, others answer


def mount_with_fuse(
    image_path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    background: bool = False,
    allow_other: bool = False,
    streams_as_files: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Mount an image on an empty directory of Linux, and return when it is unmounted, here or by KeyboardInterrupt.

    With ``background``, a process of its own serves the image, and this returns as soon as it is mounted; the calling
    process must have no other threads. ``allow_other`` lets other users in (fuse(8)).

    Files have content, times, hard links and ``user.cimlayer.*`` attributes as with :func:`~cimlayer.extract`; lookups
    ignore case. Relative symbolic links that stay inside are links; other reparse points, and links with content,
    appear as the files or directories that carry them. With ``streams_as_files``, alternate streams are files
    ``NAME:STREAM`` too: as attributes they end at 64 KiB.

    :class:`~cimlayer.UnsupportedCallError` without FUSE, LimitError for an image with more names than ``limits.files``,
    another OSError if ``directory`` is not an empty directory or cannot be mounted on.
    """
    if sys.platform != "linux":
        raise NotImplementedError("mounting with FUSE needs Linux")
    place = os.path.abspath(directory)  # which is never taken for an option
    if os.listdir(place):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(directory))
    with ImageReader(image_path) as image:
        files = ImageFiles(image, streams_as_files=streams_as_files, limits=limits)
        connection = fusemount.mount(place, allow_other=allow_other)
        try:
            with _unmounted_on_failure(place):
                _greet(connection, files)
                if background and not fork_into_background():
                    return
            if background:
                _serve_as_daemon(connection, files, place)
            with suppress(KeyboardInterrupt), _unmounted_on_failure(place):
                _serve(connection, files)
        finally:
            os.close(connection)


@contextmanager
def _unmounted_on_failure(place: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            fusemount.unmount(place, lazily=True)
        raise


def _serve_as_daemon(connection: int, files: ImageFiles, place: str) -> NoReturn:
    """Until the end of the process, which comes when the file system is unmounted, or as if by Ctrl-C."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
        with _unmounted_on_failure(place):
            _serve(connection, files)
    finally:
        os._exit(0)


def unmount_with_fuse(directory: str | os.PathLike[str]) -> None:
    """Unmount what :func:`mount_with_fuse` has mounted; OSError if it is in use, or if no image is mounted there."""
    place = os.path.abspath(directory)
    if sys.platform != "linux" or not fusemount.is_mounted(place):
        raise OSError(errno.EINVAL, "no CIM is mounted there", str(directory))
    fusemount.unmount(place)


def _greet(connection: int, files: ImageFiles) -> None:
    """Agree with the kernel on how to talk: its first request, which is there as soon as it has mounted."""
    _, _, unique, *_ = _IN.unpack_from(request := os.read(connection, _REQUEST))
    _, minor, readahead, offered = _INIT_IN.unpack_from(request, _IN.size)
    if minor < _OLDEST:
        _reply(connection, unique, error=errno.EPROTO)
        raise OSError(errno.EPROTO, f"the FUSE of this kernel is too old: 7.{minor}")
    files.stateless_directories = bool(offered & _NO_OPENDIR_SUPPORT)
    facts = (*_VERSION, readahead, offered & _FEATURES, 16, 12, _WRITE, 1, _PAGES, 0, 0)
    _reply(connection, unique, _INIT_OUT.pack(*facts))


def _serve(connection: int, files: ImageFiles) -> None:
    """Answer until the file system is unmounted."""
    threads = [threading.Thread(target=_answer_all, args=(connection, files), daemon=True) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _answer_all(connection: int, files: ImageFiles) -> None:
    while True:
        try:
            request = os.read(connection, _REQUEST)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EAGAIN):  # whoever asked was interrupted
                continue
            return  # ENODEV: unmounted
        _, call, unique, node, *_ = _IN.unpack_from(request)
        if call in _UNANSWERED:
            continue
        try:
            _reply(connection, unique, files.answer(call, node, request[_IN.size :]))
        except OSError as error:
            _reply(connection, unique, error=error.errno or errno.EIO)
        except Exception:  # a fault of ours must not leave whoever asked waiting
            _reply(connection, unique, error=errno.EIO)


def _reply(connection: int, unique: int, data: bytes = b"", *, error: int = 0) -> None:
    with suppress(FileNotFoundError):  # whoever asked was interrupted
        os.writev(connection, [_OUT.pack(_OUT.size + len(data), -error, unique), data])


class ImageFiles:
    """The answers for one image. Threads may ask together."""

    def __init__(self, image: ImageReader, *, streams_as_files: bool = False, limits: Limits = DEFAULT_LIMITS) -> None:
        self.stateless_directories = True
        self._image = image
        self._files = MountedFiles(image, target_inside, max_names=limits.files, owner=os.getuid(), group=os.getgid())
        self._streams = StreamFiles(image, self._files) if streams_as_files else None
        self._size = _size_of(image)
        self._handles = itertools.count(1)
        self._opened: dict[int, tuple[threading.Lock, StreamReader]] = {}
        self._calls: dict[int, Callable[[int, bytes], bytes]] = {
            _Call.LOOKUP: self._lookup,
            _Call.GETATTR: self._attributes,
            _Call.READLINK: lambda node, _: self._files.readlink(node),
            _Call.OPEN: self._open,
            _Call.READ: self._read,
            _Call.STATFS: self._statfs,
            _Call.RELEASE: self._release,
            _Call.GETXATTR: self._getxattr,
            _Call.LISTXATTR: self._listxattr,
            _Call.OPENDIR: self._opendir,
            _Call.READDIR: lambda node, data: self._read_directory(node, data, plus=False),
            _Call.RELEASEDIR: lambda _node, _data: b"",
            _Call.READDIRPLUS: lambda node, data: self._read_directory(node, data, plus=True),
            _Call.LSEEK: self._lseek,
        }

    def answer(self, call: int, node: int, data: bytes) -> bytes:
        """The reply to a request, both without their headers; OSError for one that fails."""
        handler = self._calls.get(call)
        if handler is None:
            raise OSError(errno.ENOSYS, "not a call of a read-only file system")
        return handler(node, data)

    def _lookup(self, node: int, data: bytes) -> bytes:
        name = data.partition(b"\0")[0]
        if self._streams is not None and b":" in name:
            return self._streams.lookup(node, name)
        return self._files.lookup(node, name)

    def _attributes(self, node: int, _data: bytes) -> bytes:
        if self._streams is not None and self._streams.has(node):
            return self._streams.attributes(node)
        return self._files.attributes(node)

    def _read_directory(self, node: int, data: bytes, *, plus: bool) -> bytes:
        _, offset, size = _READ_IN.unpack_from(data)
        entries = self._files.read_directory(node, offset, size, plus=plus)
        if not entries and self._streams is not None:
            return self._streams.read_directory(node, offset, size, plus=plus)
        return entries

    def _opendir(self, _node: int, _data: bytes) -> bytes:
        if self.stateless_directories:
            raise OSError(errno.ENOSYS, "directories are read without being opened")
        return _OPEN_OUT.pack(0, _KEEP_CACHE | _CACHE_DIR, 0)

    def _open(self, node: int, _data: bytes) -> bytes:
        """One stream for all reads of an open file: only what one stream reads to its end is checked."""
        handle = next(self._handles)
        if self._streams is not None and self._streams.has(node):
            content = self._streams.open(node)
        else:
            content = self._image.open(self._files.entry(node))
        self._opened[handle] = (threading.Lock(), content)
        return _OPEN_OUT.pack(handle, _KEEP_CACHE, 0)

    def _release(self, _node: int, data: bytes) -> bytes:
        self._opened.pop(*_RELEASE_IN.unpack_from(data))[1].close()
        return b""

    def _read(self, _node: int, data: bytes) -> bytes:
        handle, offset, size = _READ_IN.unpack_from(data)
        lock, content = self._opened[handle]
        with lock:
            content.seek(offset)
            return content.read(size) or b""

    def _lseek(self, node: int, data: bytes) -> bytes:
        """Where data or a hole follows: a file is one or the other as a whole."""
        _, offset, whence, _ = _LSEEK_IN.unpack_from(data)
        entry = None if self._streams is not None and self._streams.has(node) else self._files.entry(node)
        if entry is None or whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if offset >= entry.size or (entry.sparse and whence == os.SEEK_DATA):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return _LSEEK_OUT.pack(offset if entry.sparse or whence == os.SEEK_DATA else entry.size)

    def _statfs(self, _node: int, _data: bytes) -> bytes:
        names = self._files.names
        return _STATFS_OUT.pack(-(-self._size // _BLOCK), 0, 0, names, 0, _BLOCK, _LONGEST_NAME, _BLOCK, 0)

    def _getxattr(self, node: int, data: bytes) -> bytes:
        name = data[_XATTR_IN.size :].partition(b"\0")[0].decode("utf-8", "surrogateescape")
        if not name.startswith("user."):  # access control lists among them: ls(1) then asks for no other file's
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        value = None
        if name in self._attribute_names(node):
            value = attribute_value(self._image, self._files.entry(node), name)
        if value is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return _sized(value, data)

    def _listxattr(self, node: int, data: bytes) -> bytes:
        names = [name.encode("utf-8", "surrogatepass") + b"\0" for name in self._attribute_names(node)]
        ends = itertools.accumulate(map(len, names))
        return _sized(b"".join(name for name, end in zip(names, ends, strict=True) if end <= _LARGEST_XATTR), data)

    def _attribute_names(self, node: int) -> list[str]:
        """Those that can be read: a symbolic link has none for Linux, and neither name nor value is too long for it."""
        if self._streams is not None and self._streams.has(node):
            return []
        with suppress(OSError):
            self._files.readlink(node)
            return []
        entry = self._files.entry(node)
        large = [stream.name for stream in self._image.streams(entry) if stream.size > _LARGEST_XATTR]
        return [
            name
            for name in attribute_names(self._image, entry)
            if len(name.encode("utf-8", "surrogatepass")) <= _LONGEST_XATTR_NAME
            and not any(name.endswith(f".stream.{stream}") for stream in large)
        ]


def _sized(value: bytes, data: bytes) -> bytes:
    """A value, or its size alone for whoever has no room yet."""
    size, _ = _XATTR_IN.unpack_from(data)
    if not size:
        return _XATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return value


def _size_of(image: ImageReader) -> int:
    """Bytes of all files of an image, its parents' among them."""
    names = [image.name, *(name for one in image.region_sets for name in one.file_names())]
    size = 0
    for name in names:
        with suppress(FileNotFoundError):  # object ID files are for those that write
            size += Path(image.directory, name).stat().st_size
    return size
