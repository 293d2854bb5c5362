"""What a crash leaves in a directory of images: files that no image refers to."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cimlayer.errors import CorruptImageError
from cimlayer.image.files import DiskFile, ImageDirectory
from cimlayer.image.locking import locked


def collect_garbage(directory: str | os.PathLike[str], *, delete: bool = False) -> list[DiskFile]:
    """The region and object ID files that no image of the directory refers to, and temporary files.

    They are removed if ``delete`` is set. No image can be written in the directory meanwhile; if one is, this refuses
    with :class:`~cimlayer.errors.ImageBusyError`, since its files have no image yet. If any image cannot be read,
    CorruptImageError: what it refers to is not known. Other files are left alone.
    """
    path = Path(directory)
    with locked(path):
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


def remove_leftovers(directory: str | os.PathLike[str], file_name: str) -> bool:
    """Remove the region set that a file belongs to, if a crash has left it behind; returns whether it is gone.

    It stays if an image refers to it, or may do so because it cannot be read, or is being written: see
    :func:`collect_garbage`.
    """
    path = Path(directory)
    with locked(path):
        found = ImageDirectory(path)
        names = [orphan.name for orphan in found.orphans()]
        if found.unreadable or file_name not in names:
            return False
        set_id = file_name.split("_")[1]
        for name in names:
            if set_id in name:
                (path / name).unlink()
        return True
