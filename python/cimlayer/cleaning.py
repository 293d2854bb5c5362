"""What a crash leaves in a directory of images: files that no image refers to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cimlayer.errors import CorruptImageError, ImageBusyError
from cimlayer.imagefiles import DiskFile, ImageDirectory


def collect_garbage(directory: str | os.PathLike[str], *, delete: bool = False) -> list[DiskFile]:
    """The region and object ID files that no image of the directory refers to, and temporary files.

    They are removed if ``delete`` is set. No image can be written in the directory meanwhile; if one is, this refuses
    with :class:`~cimlayer.errors.ImageBusyError`, since its files have no image yet. If any image cannot be read,
    CorruptImageError: what it refers to is not known. Other files are left alone.
    """
    path = Path(directory)
    with _locked(path):
        found = ImageDirectory(path)
        if found.unreadable:
            name, error = next(iter(found.unreadable.items()))
            raise CorruptImageError(
                errno.EBADMSG, f"nothing can be removed beside an image that cannot be read ({error.strerror})",
                str(path / name),
            )  # fmt: skip
        orphans = found.orphans()
        if delete:
            for orphan in orphans:
                (path / orphan.name).unlink()
        return orphans


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Be what a writer of images would be: the only one in the directory (libcimfs/io.h, "open_directory")."""
    import fcntl  # noqa: PLC0415  only POSIX has it

    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ImageBusyError(
                errno.EBUSY, "an image is being written in this directory", str(directory)
            ) from error
        yield
    finally:
        os.close(descriptor)
