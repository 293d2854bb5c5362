"""Showing the progress of an import."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from cimlayer.cli.output import Output, amount
from cimlayer.events import (
    Event,
    LayerCommitting,
    LayerDone,
    LayerProgress,
    LayerReused,
    LayerStarted,
    ProgressCallback,
    event_record,
)

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_RECORDS = 0.2
_SHOWN_DIGITS = 12


@contextlib.contextmanager
def progress_shown(output: Output, *, quiet: bool, as_json: bool, by_layer: bool) -> Iterator[ProgressCallback | None]:
    """The callback that shows the progress of an import: JSON lines, bars on a terminal, a few lines in a log, or None.

    ``by_layer`` gives a log one line per layer, besides those that show that the import is still running.
    """
    if as_json:
        yield _Records(output)
    elif quiet:
        yield None
    elif sys.stderr.isatty():
        with contextlib.closing(_Bars()) as bars:
            yield bars
    else:
        yield _Lines(by_layer)


class _Records:
    """One JSON line per event; progress at most five times per second."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, LayerProgress):
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + _SECONDS_BETWEEN_RECORDS
        self._output.json(event_record(event))
        sys.stdout.flush()


class _Lines:
    """One line per finished layer, and one every ten seconds while a large one is imported."""

    def __init__(self, by_layer: bool) -> None:
        self._by_layer = by_layer
        self._label = ""
        self._size: int | None = None
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, LayerStarted):
            self._label, self._size = _label(event), event.size
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
        elif isinstance(event, LayerProgress):
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
                of = f" of {amount(self._size)}" if self._size else ""
                click.echo(f"{self._label}: {amount(event.bytes_read)}{of} read", err=True)
        elif self._by_layer and isinstance(event, LayerDone):
            click.echo(f"{self._label}: {amount(event.bytes)} of files in {event.seconds:.1f} s", err=True)
        elif self._by_layer and isinstance(event, LayerReused):
            click.echo(f"{_label(event)}: already exists", err=True)


class _Bars:
    """One bar per layer: bytes, rate and time left."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, LayerStarted):
            self._bar = _new_bar(_label(event), event.size)
        elif isinstance(event, LayerProgress):
            self._bar.update(event.bytes_read - self._bar.n)
        elif isinstance(event, LayerCommitting):
            self._bar.set_postfix_str("committing")
        elif isinstance(event, LayerDone):
            self._bar.set_postfix_str("")
            self.close()
        elif isinstance(event, LayerReused):
            click.echo(f"{_label(event)}: already exists", err=True)

    def close(self) -> None:
        """Leave the last bar on the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _new_bar(label: str, size: int | None) -> Any:
    from tqdm import tqdm  # noqa: PLC0415  only needed on a terminal

    tqdm.monitor_interval = 0  # no monitor thread
    width = shutil.get_terminal_size().columns - 1  # 80 if the terminal does not say
    return tqdm(total=size, desc=label, unit="B", unit_scale=True, unit_divisor=1024, ncols=width)


def _label(event: LayerStarted | LayerReused) -> str:
    name = (event.digest or "").partition(":")[2][:_SHOWN_DIGITS] or event.layer
    return f"layer {event.number} of {event.count} {name}" if event.count > 1 else f"layer {name}"
