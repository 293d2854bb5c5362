"""Showing the progress of a command, on a terminal only."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from cimlayer.cli.output import LAYERS, QUIET, Output, amount, escaped, of_call
from cimlayer.events import (
    Event,
    FilesProgress,
    LayerCommitting,
    LayerDone,
    LayerProgress,
    LayerReused,
    LayerStarted,
    ProgressCallback,
    event_record,
)

_SECONDS_BEFORE_FIRST = 0.5
_SECONDS_BETWEEN_DRAWINGS = 0.1
_SECONDS_BETWEEN_RECORDS = 0.2
_SECONDS_OF_A_RATE = 0.5  # a shorter time says nothing
_SHOWN_DIGITS = 12
_USUAL_COLUMNS = 80
_CLEAR_LINE = "\r\x1b[K"


class Bar:
    """One line on the terminal: a label, how many bytes of how many, the rate and the time left.

    It is drawn once an operation has taken half a second, from then on ten times a second at most, and never wider than
    the terminal is at that moment. Call it with the number of bytes done so far.
    """

    def __init__(self, label: str, total: int | None = None) -> None:
        """``total`` is None if nobody knows it."""
        self._label = escaped(label)
        self._total = total
        self._begun = time.monotonic()
        self._next = self._begun + _SECONDS_BEFORE_FIRST
        self._shown = False
        self._done = 0

    def __call__(self, done: int) -> None:
        """So many bytes are done."""
        self._done = done
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS_BETWEEN_DRAWINGS
            self._draw(self._text(now - self._begun))

    def note(self, text: str) -> None:
        """What is being done now, in place of numbers."""
        if self._shown:
            self._draw(f"{self._label}: {text}")

    def hide(self) -> None:
        """Take the line off the screen, until it is drawn again."""
        if self._shown:
            self._shown = False
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()

    def _draw(self, text: str) -> None:
        self._shown = True
        sys.stderr.write(_CLEAR_LINE + text[: _columns() - 1])
        sys.stderr.flush()

    def _text(self, seconds: float) -> str:
        done = amount(self._done)
        text = f"{self._label}: "
        if self._total:
            text += f"{min(100, 100 * self._done // self._total):3}%, {done} of {amount(self._total)}"
        else:
            text += done
        if seconds >= _SECONDS_OF_A_RATE and self._done:
            rate = self._done / seconds
            text += f", {amount(rate)}/s"
            if self._total and self._done < self._total:
                minutes, left = divmod(round((self._total - self._done) / rate), 60)
                text += f", {minutes}:{left:02} left"
        return text


def _columns() -> int:
    """The width of the terminal now; it may shrink at any time."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_COLUMNS
    return _USUAL_COLUMNS


@contextlib.contextmanager
def progress_of(label: str, total: int | None = None) -> Iterator[Bar | None]:
    """A bar for the time of an operation; None where no progress is to be shown."""
    if not sys.stderr.isatty() or of_call(QUIET):
        yield None
        return
    bar = Bar(label, total)
    try:
        yield bar
    finally:
        bar.hide()


@contextlib.contextmanager
def files_progress(label: str) -> Iterator[ProgressCallback | None]:
    """The same for an operation that reports FilesProgress."""
    with progress_of(label) as bar:

        def show(event: Event) -> None:
            if isinstance(event, FilesProgress) and bar is not None:
                bar(event.bytes)

        yield None if bar is None else show


@contextlib.contextmanager
def progress_shown(
    output: Output, directory: Path, *, as_json: bool, by_layer: bool
) -> Iterator[ProgressCallback | None]:
    """The callback that shows the progress of an import: JSON lines, or bars on a terminal.

    ``by_layer`` leaves a line for each layer, on a terminal or not. Layers are made in ``directory``, from the root.
    """
    click.get_current_context().meta[LAYERS] = directory
    if as_json:
        yield _Records(output, directory)
    elif of_call(QUIET):
        yield None
    else:
        with contextlib.closing(_Bars(by_layer)) as bars:
            yield bars


class _Records:
    """One JSON line per event; progress at most five times per second."""

    def __init__(self, output: Output, directory: Path) -> None:
        self._output = output
        self._directory = directory
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, LayerProgress):
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + _SECONDS_BETWEEN_RECORDS
        record = event_record(event)
        self._output.json(record | {"layer": str(self._directory / record["layer"])})
        sys.stdout.flush()


class _Bars:
    """One bar per layer while it is read, on a terminal, and then one line."""

    def __init__(self, by_layer: bool) -> None:
        self._by_layer = by_layer
        self._label = ""
        self._bar: Bar | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, LayerStarted):
            self._label = _label(event)
            self._bar = Bar(self._label, event.size) if sys.stderr.isatty() else None
        elif isinstance(event, LayerProgress) and self._bar is not None:
            self._bar(event.bytes_read)
        elif isinstance(event, LayerCommitting) and self._bar is not None:
            self._bar.note("committing")
        elif isinstance(event, LayerDone):
            self._finish(f"{self._label}: {amount(event.bytes)} of files in {event.seconds:.1f} s")
        elif isinstance(event, LayerReused):
            self._finish(f"{_label(event)}: already exists")

    def _finish(self, text: str) -> None:
        self.close()
        if self._by_layer:
            click.echo(escaped(text), err=True)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.hide()
            self._bar = None


def _label(event: LayerStarted | LayerReused) -> str:
    name = (event.digest or "").partition(":")[2][:_SHOWN_DIGITS] or event.layer
    return f"layer {event.number} of {event.count} {name}" if event.count > 1 else f"layer {name}"
