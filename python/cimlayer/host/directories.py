"""Directories that are made for a while, or for good: with those above them, on the disk, taken back."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from pathlib import Path

from cimlayer.host.opendirectory import sync_directory


def make_directories(path: Path) -> list[Path]:
    """Make a directory and those above it; returns what was missing, the innermost first."""
    missing = list(itertools.takewhile(lambda directory: not directory.exists(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    return missing


def sync_directories(made: Iterable[Path]) -> None:
    """Wait until what :func:`make_directories` made can be found on the disk."""
    for directory in made:
        sync_directory(directory.parent)


def remove_directories(made: Iterable[Path]) -> None:
    """Take back what :func:`make_directories` made, as far as nobody uses it."""
    with contextlib.suppress(OSError):
        for directory in made:
            directory.rmdir()
