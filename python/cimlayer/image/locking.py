"""The lock of a directory of images: whoever writes one in it holds it (libcimfs/io.h, "open_directory")."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cimlayer.errors import ImageBusyError

_LOCKS = Path("/proc/locks")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only one who changes images in the directory; ImageBusyError at once if somebody else is."""
    import fcntl  # noqa: PLC0415  only POSIX has it

    owner = os.getpid()
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            error = ImageBusyError(errno.EBUSY, "an image is being written in this directory", str(directory))
            name_holder(error, directory)
            raise error from None
        yield
    finally:
        if os.getpid() == owner:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing does not end it while a forked process has the file
        os.close(descriptor)


def name_holder(error: ImageBusyError, directory: Path) -> None:
    """Add to the error's text which process holds the lock, where the system tells."""
    holder = lock_holder(directory)
    if holder is not None:
        error.reason += f" (by process {holder})"


def lock_holder(directory: Path) -> int | None:
    """The process that holds the lock; None if nobody does, or if it cannot be told.

    Linux lists locks as ``1: FLOCK ADVISORY WRITE pid major:minor:inode start end`` (proc_locks(5)), the device in
    hexadecimal. A file system whose files do not have its own device number, such as btrfs, is not found there, nor is
    a process of another PID namespace.
    """
    try:
        status = directory.stat()
        lines = _LOCKS.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        words = line.split()
        if words[1:2] == ["FLOCK"] and words[5:6] == [wanted] and words[4].isdigit() and words[4] != "0":
            return int(words[4])
    return None
