"""Locks on open files that exclude other processes, and other open files of this one; they end with the process.

libcimfs takes the same ones (``io_posix.c``, ``io_win32.c``), so the two exclude each other.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    from cimfs_ext import winfiles
    from cimlayer.host.paths import native_path

    def open_to_lock(path: Path, *, create: bool = False) -> int:
        """The descriptor of a file, which can be removed while it is open: links are not followed."""
        flags = os.O_RDWR if create else os.O_RDONLY
        return msvcrt.open_osfhandle(winfiles.open_to_hold(native_path(path), create), flags | os.O_NOINHERIT)

    def try_lock(descriptor: int) -> bool:
        """Lock an open file for this holder alone; False if another has it."""
        return winfiles.hold(msvcrt.get_osfhandle(descriptor))

    def unlock_and_close(descriptor: int) -> None:
        """End the lock and close the file."""
        os.close(descriptor)

    def lock_holder(path: Path) -> int | None:
        """The process that has locked a file; None if nobody has, or if that is not known."""
        with suppress(OSError):
            handle = winfiles.open_to_hold(native_path(path), False)
            try:
                return winfiles.holder(handle) or None
            finally:
                winfiles.close(handle)
        return None

else:
    import fcntl

    _LOCKS = Path("/proc/locks")

    def open_to_lock(path: Path, *, create: bool = False) -> int:
        """The descriptor of a file, which can be removed while it is open: links are not followed."""
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    def try_lock(descriptor: int) -> bool:
        """Lock an open file for this holder alone; False if another has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock_and_close(descriptor: int) -> None:
        """End the lock and close the file."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing does not end it while a forked process has the file
        os.close(descriptor)

    def lock_holder(path: Path) -> int | None:
        """The process that has locked a file; None if nobody has, or if that is not known.

        Linux lists locks as ``1: FLOCK ADVISORY WRITE pid major:minor:inode start end`` (proc_locks(5)), the device in
        hexadecimal. A file system whose files do not have its own device number, such as btrfs, is not found there, nor
        is a process of another PID namespace.
        """
        try:
            status = path.stat()
            lines = _LOCKS.read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            return None
        wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in lines:
            words = line.split()
            if words[1:2] == ["FLOCK"] and words[5:6] == [wanted] and words[4].isdigit() and words[4] != "0":
                return int(words[4])
        return None
