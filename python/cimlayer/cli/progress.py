"""Showing the progress of an operation, on a terminal only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cimlayer.cli.output import QUIET, of_call

if TYPE_CHECKING:
    from cimlayer.cli.bar import Bar


def new_bar(label: str, total: int | None = None, *, at_once: bool = False) -> Bar | None:
    """A bar; None where no progress is to be shown."""
    if not sys.stderr.isatty() or of_call(QUIET):
        return None
    from cimlayer.cli.bar import Bar  # noqa: PLC0415  tqdm is only needed on a terminal

    return Bar(label, total, at_once=at_once)


@contextlib.contextmanager
def progress_of(label: str, total: int | None = None, *, at_once: bool = False) -> Iterator[Bar | None]:
    """A bar for the time of an operation; None where no progress is to be shown."""
    bar = new_bar(label, total, at_once=at_once)
    with contextlib.nullcontext() if bar is None else bar:
        yield bar
