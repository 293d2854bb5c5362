"""Showing the progress of what reports events: bars on a terminal, or JSON lines."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cimlayer.cli.output import LAYERS, QUIET, Output, amount, escaped, of_call
from cimlayer.cli.progress import new_bar, progress_of
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

if TYPE_CHECKING:
    from cimlayer.cli.bar import Bar

_SECONDS_BETWEEN_RECORDS = 0.2
_SHOWN_DIGITS = 12


@contextlib.contextmanager
def files_progress(label: str) -> Iterator[ProgressCallback | None]:
    """A bar for an operation that reports FilesProgress, of one image or of several in turn."""
    with progress_of(label) as bar:
        image, before, done = "", 0, 0

        def show(event: Event) -> None:
            nonlocal image, before, done
            if isinstance(event, FilesProgress) and bar is not None:
                if event.image != image:
                    image, before = event.image, done
                done = before + event.bytes
                bar.show(done)

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
            self._bar = new_bar(self._label, event.size)
        elif isinstance(event, LayerProgress) and self._bar is not None:
            self._bar.show(event.bytes_read)
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
            self._bar.close()
            self._bar = None


def _label(event: LayerStarted | LayerReused) -> str:
    name = (event.digest or "").partition(":")[2][:_SHOWN_DIGITS] or event.layer
    return f"layer {event.number} of {event.count} {name}" if event.count > 1 else f"layer {name}"
