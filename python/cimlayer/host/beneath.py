"""Calls that reach a file by one name in an open directory, never through a link: openat(2) and its family on POSIX,
NtCreateFile on Windows.

Directories are descriptors, on Windows handles; names are bytes, as os.fsencode makes them.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

if sys.platform == "win32":
    from cimfs_ext import winfiles
    from cimfs_ext.winfiles import close, duplicate, is_directory, link, make_directory, open_directory, symlink
    from cimlayer.host.paths import native_path

    def open_top(path: Path) -> int:
        """Open the directory that the others are reached from; links in its path are followed."""
        return winfiles.open_top(native_path(path))

else:
    _DIRECTORY = os.O_RDONLY | os.O_DIRECTORY

    def open_top(path: Path) -> int:
        """Open the directory that the others are reached from; links in its path are followed."""
        return os.open(path, _DIRECTORY)

    def open_directory(name: bytes, directory: int) -> int:
        """Open a directory; an OSError for a link in its place."""
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)

    duplicate = os.dup
    close = os.close

    def make_directory(name: bytes, directory: int) -> None:
        """Make a directory."""
        os.mkdir(name, dir_fd=directory)

    def is_directory(name: bytes, directory: int) -> bool:
        """Whether the entry is a directory, not a link to one."""
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)

    def link(name: bytes, directory: int, new_name: bytes, new_directory: int) -> None:
        """Give a file one more name."""
        os.link(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory, follow_symlinks=False)

    def symlink(target: str, name: bytes, directory: int, *, is_directory: bool) -> None:
        """Make a symbolic link; Windows wants to know whether it leads to a directory."""
        os.symlink(target.encode("utf-8", "surrogatepass"), name, dir_fd=directory)


__all__ = ["close", "duplicate", "is_directory", "link", "make_directory", "open_directory", "open_top", "symlink"]
