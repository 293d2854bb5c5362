"""The bar that progress is drawn with: tqdm's, in the units of the commands. Imported when one is made."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import IO, Any

from tqdm import tqdm

from cimlayer.cli.output import amount, escaped

_SECONDS_BEFORE_FIRST = 0.5
_SECONDS_BETWEEN_DRAWINGS = 0.1
_USUAL_COLUMNS = 80
_WITH_TOTAL = "{desc}: {percentage:3.0f}%|{bar}| {done} of {whole}, {speed}/s, {remaining} left{postfix}"
_WITHOUT = "{desc}: {done}, {speed}/s{postfix}"


class Bar(tqdm):  # type: ignore[type-arg]  # generic for type checkers only
    """One line on the terminal: a label, how many bytes of how many, the rate and the time left.

    It is first drawn after half a second, then at most ten times a second, and never wider than the terminal is.
    """

    monitor_interval = 0  # no thread that watches

    def __init__(self, label: str, total: int | None = None, *, at_once: bool = False) -> None:
        """``total`` is None if nobody knows it; ``at_once`` draws it before anything is done."""
        super().__init__(
            total=total or None,
            desc=escaped(label),
            file=sys.stderr,
            disable=None,
            dynamic_ncols=True,
            leave=False,
            delay=0.0 if at_once else _SECONDS_BEFORE_FIRST,
            mininterval=_SECONDS_BETWEEN_DRAWINGS,
            miniters=1,
            bar_format=_WITH_TOTAL if total else _WITHOUT,
        )

    def show(self, done: int) -> None:
        """So many bytes are done."""
        self.update(done - self.n)

    def note(self, text: str) -> None:
        """What is being done now, behind the numbers."""
        self.set_postfix_str(escaped(text), refresh=self._drawn)

    def hide(self) -> None:
        """Take the line off the screen, until it is drawn again."""
        if self._drawn:
            self.clear()

    @property
    def _drawn(self) -> bool:
        return not self.disable and self.last_print_t >= self.start_t + (self.delay or 0)

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """What ``bar_format`` may refer to."""
        values = super().format_dict
        done, whole, rate = values["n"], values["total"], values["rate"]
        if not rate and values["elapsed"]:
            rate = done / values["elapsed"]
        if whole:  # tqdm forgets a total that is exceeded
            values["total"] = whole = max(whole, done)
        if (values["ncols"] or 0) <= 0:  # a terminal that does not say
            values["ncols"] = _USUAL_COLUMNS - 1
        return {**values, "done": amount(done), "whole": amount(whole or 0), "speed": amount(rate or 0)}

    @staticmethod
    def status_printer(file: IO[str]) -> Callable[[str], None]:  # type: ignore[override]  # it is sys.stderr
        """tqdm clears a line with spaces, which wrap in a terminal that has become narrower."""

        def draw(text: str) -> None:
            file.write(f"\r\x1b[K{text}")
            file.flush()

        return draw


Bar.set_lock(threading.RLock())  # the default is a lock between processes, too
