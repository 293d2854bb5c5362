"""Long-running commands: how they show progress, and how they are stopped."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from cimlayer.cli.output import Output, amount
from cimlayer.errors import OperationCancelledError
from cimlayer.events import (
    CancellationToken,
    Event,
    LayerCommitting,
    LayerDone,
    LayerProgress,
    LayerReused,
    LayerStarted,
    ProgressCallback,
    event_record,
)

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows does not have the last one
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_RECORDS = 0.2
_SHOWN_DIGITS = 12


_Command = TypeVar("_Command", bound=Callable[..., Any])
_IMPORT_OPTIONS = (
    click.option("--no-sync", is_flag=True, help="Do not wait for the data to reach the disk."),
    click.option("--reproducible", is_flag=True, help="Same input, same bytes; missing times are SOURCE_DATE_EPOCH."),
    click.option(
        "--jobs", metavar="N", type=click.IntRange(min=1), help="Number of threads (default: one per CPU, at most 2)."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show no progress, only the result."),
    click.option("as_json", "--json", is_flag=True, help="Print events and the final summary as JSON lines."),
)


def import_options(command: _Command) -> _Command:
    """Add the options that all importing commands have."""
    for option in reversed(_IMPORT_OPTIONS):
        command = option(command)
    return command


@contextlib.contextmanager
def stoppable() -> Iterator[CancellationToken]:
    """A token that Ctrl-C, SIGTERM and SIGHUP cancel; the exit code is then that of a program ended by the signal."""
    token = CancellationToken()
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if token.cancelled:
            raise KeyboardInterrupt  # second time: stop at once
        received.append(number)
        token.cancel()

    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    previous = {number: signal.getsignal(number) for number in numbers}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)
    try:
        yield token
    except OperationCancelledError:
        click.get_current_context().exit(128 + received[0])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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
        else:
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
