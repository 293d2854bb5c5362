"""Directories that are made for a while, or for good: with those above them, on the disk, taken back."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from cimlayer.host.opendirectory import sync_directory


def make_directories(path: Path, made: list[Path]) -> None:
    """Make a directory and those above it; ``made`` gets what is missing, the innermost first, before it is made."""
    missing = itertools.takewhile(lambda directory: not directory.exists(), (path, *path.parents))
    made[:0] = [directory for directory in missing if directory not in made]
    path.mkdir(parents=True, exist_ok=True)


def sync_directories(made: Iterable[Path]) -> None:
    """Wait until what :func:`make_directories` made can be found on the disk."""
    for directory in made:
        sync_directory(directory.parent)


@contextlib.contextmanager
def taken_back(made: list[Path]) -> Iterator[None]:
    """If the block fails, what :func:`make_directories` made goes again, as far as nobody uses it."""
    try:
        yield
    except BaseException:
        remove_directories(made)
        raise


def remove_directories(made: Iterable[Path]) -> None:
    """Take back what :func:`make_directories` made, as far as nobody uses it."""
    for directory in made:
        with contextlib.suppress(OSError):
            directory.rmdir()
