"""Files in a directory of images that no image refers to: a crash has left them."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path

from cimlayer.errors import CorruptImageError
from cimlayer.image.files import DiskFile, ImageDirectory, set_of
from cimlayer.image.locking import try_hold


@contextmanager
def orphans_held(path: Path) -> Iterator[tuple[ImageDirectory, list[DiskFile]]]:
    """What lies in a directory of images, and the files in it that belong to no image and no running writer.

    While the ``with`` block runs, their sets are held: nobody begins to write one of them. If an image cannot be read,
    CorruptImageError, since what it refers to is not known.
    """
    with ExitStack() as stack:
        held = set()
        for set_id, files in groupby(sorted(_orphans(path), key=_set_of), _set_of):
            names = {f"region_{set_id}_0", *(file.name for file in files if file.name.startswith("image_"))}
            if all(_hold(stack, path / name) for name in sorted(names)):
                held.add(set_id)
        # Looked at again: a writer that ended in between has an image now.
        directory = ImageDirectory(path)
        yield directory, [orphan for orphan in directory.orphans() if _set_of(orphan) in held]


def remove_leftovers(directory: Path, file_name: str) -> bool:
    """Remove the region set that a file belongs to, if a crash has left it behind; returns whether it is gone."""
    with suppress(CorruptImageError), orphans_held(directory) as (_, orphans):
        names = [orphan.name for orphan in orphans if set_of(orphan.name) == set_of(file_name)]
        remove_files(directory, names)
        return file_name in names
    return False


def remove_files(directory: Path, names: Iterable[str]) -> None:
    """Remove files of a directory, those that are gone already not counted."""
    for name in names:
        (directory / name).unlink(missing_ok=True)


def _orphans(path: Path) -> list[DiskFile]:
    directory = ImageDirectory(path)
    if directory.unreadable:
        name, error = next(iter(directory.unreadable.items()))
        reason = f"nothing can be removed beside an image that cannot be read ({error.strerror})"
        raise CorruptImageError(errno.EBADMSG, reason, str(path / name))
    return directory.orphans()


def _set_of(file: DiskFile) -> str:
    return set_of(file.name)


def _hold(stack: ExitStack, file: Path) -> bool:
    """Hold what a writer of the set would hold; False if one does."""
    try:
        return stack.enter_context(try_hold(file))
    except FileNotFoundError:
        return True  # no writer has made it
