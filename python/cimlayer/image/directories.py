"""A tree of directories of the host that is walked, none of them reached through a symbolic link."""

from __future__ import annotations

import errno
import os
from collections import deque
from pathlib import Path

from cimlayer.host import beneath

Location = tuple[bytes, ...]  # a directory below the top one, as the host names it

_SEPARATOR = os.fsencode(os.sep)
_LEVELS_OPEN = 64  # of a tree, above the directory that is being filled


class Directories:
    """Directories below the top one, each opened from the one above it.

    A tree is walked, so those above the one that was asked for last stay open, but no more of them than a process may
    well have open. One that was closed is found again from the top on.
    """

    def __init__(self, root: Path, name: bytes) -> None:
        """``name`` is what errors call the top directory, ``root``."""
        self._name = name
        self._top = beneath.open_top(root)
        self._open: deque[int] = deque()  # the last ones of the way to the location
        self._location: Location = ()

    def __enter__(self) -> Directories:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for fd in (self._top, *self._open):
            beneath.close(fd)
        self._open.clear()

    def path(self, location: Location, *name: bytes) -> str:
        """How errors call a directory, or an entry of it."""
        return os.fsdecode(_SEPARATOR.join((self._name, *location, *name)))

    def enter(self, location: Location) -> int:
        """The open directory; it stays open until another one is asked for."""
        common = 0
        for ours, wanted in zip(self._location, location, strict=False):
            if ours != wanted:
                break
            common += 1
        for _ in range(min(len(self._location) - common, len(self._open))):
            beneath.close(self._open.pop())
        self._location = location[:common] if self._open else ()
        for name in location[len(self._location) :]:
            try:
                self._open.append(beneath.open_directory(name, self._current))
            except OSError as error:
                error.filename = self.path(self._location, name)
                raise
            self._location = (*self._location, name)
            if len(self._open) > _LEVELS_OPEN:
                beneath.close(self._open.popleft())
        return self._current

    @property
    def _current(self) -> int:
        return self._open[-1] if self._open else self._top

    def make(self, name: bytes) -> None:
        """Make a directory in the one that was entered last; one that is there is kept."""
        try:
            beneath.make_directory(name, self._current)
        except FileExistsError:
            if not beneath.is_directory(name, self._current):
                path = self.path(self._location, name)
                raise FileExistsError(errno.EEXIST, "not a directory", path) from None
        except OSError as error:
            error.filename = self.path(self._location, name)
            raise
