"""Ctrl-C at any line of the library: a real signal, so that what defers signals defers it too."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Lines:
    """Counts the lines of the library that run; before those of the numbers ``at``, from 0, comes a SIGINT."""

    def __init__(self, at: Iterable[int] = ()) -> None:
        self.count = 0
        self._at = frozenset(at)

    def trace(self, frame: FrameType, event: str, _argument: object) -> Callable[..., Any] | None:
        """For ``sys.settrace``."""
        if "/cimlayer/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.count += 1
            if self.count - 1 in self._at:
                signal.raise_signal(signal.SIGINT)
        return self.trace


@contextmanager
def interrupted(at: Iterable[int] = ()) -> Iterator[Lines]:
    """Meanwhile SIGINT comes before lines of these numbers, and raises KeyboardInterrupt as by default."""
    lines, handler = Lines(at), signal.signal(signal.SIGINT, signal.default_int_handler)
    previous = sys.gettrace()
    sys.settrace(lines.trace)
    try:
        yield lines
    finally:
        sys.settrace(previous)
        signal.signal(signal.SIGINT, handler)
