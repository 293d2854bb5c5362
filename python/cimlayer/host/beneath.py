"""Files that are reached by one name in an open directory, never through a link: by openat(2) and its family on POSIX,
by NtCreateFile on Windows.

Directories are descriptors, on Windows handles; names are bytes, as os.fsencode makes them. Errors know the name alone.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

_MOST_REGIONS = 1 << 16  # of data in a file; with more, its holes are read as data

if sys.platform == "win32":
    import msvcrt

    from cimfs_ext import winfiles
    from cimfs_ext.winfiles import (
        close,
        duplicate,
        link,
        make_directory,
        names,
        open_directory,
        remove,
        rename,
        symlink,
    )
    from cimlayer.host.paths import native_path

    _UNIX_EPOCH = 116444736000000000  # 1970-01-01 as a FILETIME
    _SYMBOLIC_LINK, _MOUNT_POINT, _NAME_SURROGATE = 0xA000000C, 0xA0000003, 0x20000000  # [MS-FSCC] 2.1.2.1
    _SPARSE = 0x200

    @contextlib.contextmanager
    def privileged() -> Iterator[None]:
        """Use the privileges of backup and restore, for descriptors and links of others, as far as there are any."""
        winfiles.use_privileges(True)
        try:
            yield
        finally:
            winfiles.use_privileges(False)

    def open_top(path: Path) -> int:
        """Open the directory that the others are reached from; links in its path are followed."""
        return winfiles.open_top(native_path(path))

    def status(name: bytes, directory: int) -> os.stat_result:
        """As lstat(2) has it. Reparse points that stand for something else are symbolic links."""
        with winfiles.OpenFile(name, directory) as file:
            mode = stat.S_IFDIR | 0o777 if file.is_directory else stat.S_IFREG | 0o666
            if file.reparse_tag & _NAME_SURROGATE:
                mode = stat.S_IFLNK | 0o777
            if file.attributes & stat.FILE_ATTRIBUTE_READONLY:
                mode &= ~0o222
            volume, number = file.identity
            creation, last_write, _, last_access = ((time - _UNIX_EPOCH) * 100 for time in file.times)
            seconds = [time // 10**9 for time in (last_access, last_write, creation)]
            size = 0 if file.is_directory else file.size
            more = {"st_atime_ns": last_access, "st_mtime_ns": last_write, "st_ctime_ns": creation}
            return os.stat_result((mode, number, volume, file.links, 0, 0, size, *seconds), more)

    def leads_to_directory(name: bytes, directory: int) -> bool:
        """Whether a link is one of a directory, which it says itself, wherever it leads."""
        with winfiles.OpenFile(name, directory) as file:
            return file.is_directory

    def read_link(name: bytes, directory: int) -> bytes:
        """Where a symbolic link or a mount point leads."""
        with winfiles.OpenFile(name, directory) as file:
            if file.reparse_tag not in (_SYMBOLIC_LINK, _MOUNT_POINT):
                raise OSError(errno.EINVAL, "not a link")
            data = file.reparse_data()
        at = (20 if file.reparse_tag == _SYMBOLIC_LINK else 16) + int.from_bytes(data[8:10], "little")
        target = data[at : at + int.from_bytes(data[10:12], "little")].decode("utf-16-le", "surrogatepass")
        return target.removeprefix("\\??\\").encode("utf-8", "surrogatepass")

    def open_file(name: bytes, directory: int, stream: str | None = None) -> io.FileIO:
        """A file, or one of its alternate streams, to be read."""
        return _file(winfiles.open_to_read(name, directory, stream), os.O_RDONLY)

    def create_stream(name: bytes, directory: int, stream: str) -> io.FileIO:
        """A new alternate stream, to be written."""
        return _file(winfiles.create_stream(name, directory, stream), os.O_WRONLY)

    def _file(handle: int, flags: int) -> io.FileIO:
        descriptor = msvcrt.open_osfhandle(handle, flags | os.O_NOINHERIT)
        return io.FileIO(descriptor, "rb" if flags == os.O_RDONLY else "wb")

    def set_times(name: bytes, directory: int, ns: tuple[int, int]) -> None:
        """Of the last access and write, in nanoseconds since 1970."""
        last_access, last_write = (time // 100 + _UNIX_EPOCH for time in ns)
        with winfiles.OpenFile(name, directory, write=True) as file:
            file.set_stamps(None, (0, last_write, 0, last_access))

    def data_regions(file: io.RawIOBase, size: int) -> list[tuple[int, int]]:
        """Where a file has data, as offsets and sizes in bytes; everywhere if the file system does not tell."""
        with contextlib.suppress(OSError):
            if os.fstat(file.fileno()).st_file_attributes & _SPARSE:
                return winfiles.regions(msvcrt.get_osfhandle(file.fileno()), size, _MOST_REGIONS)
        return [(0, size)] if size else []

else:
    _DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    _FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

    duplicate = os.dup
    close = os.close
    privileged = contextlib.nullcontext  # root has them without asking

    def open_top(path: Path) -> int:
        """Open the directory that the others are reached from; links in its path are followed."""
        return os.open(path, _DIRECTORY)

    def open_directory(name: bytes, directory: int) -> int:
        """Open a directory; an OSError for a link in its place."""
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)

    def names(directory: int) -> list[bytes]:
        """What is in an open directory."""
        return [os.fsencode(name) for name in os.listdir(directory)]

    def make_directory(name: bytes, directory: int) -> None:
        """Make a directory."""
        os.mkdir(name, dir_fd=directory)

    def link(name: bytes, directory: int, new_name: bytes, new_directory: int) -> None:
        """Give a file one more name."""
        os.link(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory, follow_symlinks=False)

    def symlink(target: str, name: bytes, directory: int, *, is_directory: bool) -> None:
        """Make a symbolic link; Windows wants to know whether it leads to a directory."""
        os.symlink(target.encode("utf-8", "surrogatepass"), name, dir_fd=directory)

    def rename(name: bytes, directory: int, new_name: bytes) -> None:
        """Give an entry another name in its directory; what has that name is replaced."""
        os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=directory)

    def remove(name: bytes, directory: int) -> None:
        """Remove a file or a link."""
        os.unlink(name, dir_fd=directory)

    def status(name: bytes, directory: int) -> os.stat_result:
        """As lstat(2) has it."""
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def leads_to_directory(name: bytes, directory: int) -> bool:
        """Whether a link leads to a directory; one that leads nowhere does not."""
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=directory).st_mode)
        except OSError:
            return False

    def read_link(name: bytes, directory: int) -> bytes:
        """Where a symbolic link leads."""
        return os.fsencode(os.readlink(name, dir_fd=directory))

    def open_file(name: bytes, directory: int, stream: str | None = None) -> io.FileIO:
        """A file, to be read; there are no alternate streams. Never waits for a pipe in its place."""
        return io.FileIO(os.open(name, _FILE, dir_fd=directory))

    def create_stream(name: bytes, directory: int, stream: str) -> io.FileIO:
        """There are no alternate streams: OSError."""
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), f"{os.fsdecode(name)}:{stream}")

    def set_times(name: bytes, directory: int, ns: tuple[int, int]) -> None:
        """Of the last access and write, in nanoseconds since 1970."""
        os.utime(name, ns=ns, dir_fd=directory, follow_symlinks=False)

    def data_regions(file: io.RawIOBase, size: int) -> list[tuple[int, int]]:
        """Where a file has data, as offsets and sizes in bytes; everywhere if the file system does not tell."""
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
        return [(0, size)] if size else []


def is_directory(name: bytes, directory: int) -> bool:
    """Whether the entry is a directory, not a link to one."""
    return stat.S_ISDIR(status(name, directory).st_mode)


__all__ = [
    "close",
    "create_stream",
    "data_regions",
    "duplicate",
    "is_directory",
    "leads_to_directory",
    "link",
    "make_directory",
    "names",
    "open_directory",
    "open_file",
    "open_top",
    "privileged",
    "read_link",
    "remove",
    "rename",
    "set_times",
    "status",
    "symlink",
]
