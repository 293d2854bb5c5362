"""What whoever makes one image from another has in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cimlayer.errors import LimitError


def name_beside(image: Path, parent: str | os.PathLike[str]) -> str:
    """The name of a parent, whose regions a fork finds in its own directory; ValueError if it lies in another one."""
    path = Path(os.path.abspath(parent))
    if os.path.realpath(path.parent) != os.path.realpath(image.parent):
        raise ValueError(f"the parent must lie in the directory of the new image, {image.parent}: {parent}")
    return path.name


@contextmanager
def limits_named(name: str) -> Iterator[None]:
    """A LimitError says which image it is about."""
    try:
        yield
    except LimitError as error:
        error.layer = name
        raise
