"""Commands that work for a while: how they show it, and how they are stopped."""

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

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # the last one is not on Windows
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_RECORDS = 0.2
_SHOWN_DIGITS = 12


_Command = TypeVar("_Command", bound=Callable[..., Any])
_IMPORT_OPTIONS = (
    click.option("--no-sync", is_flag=True, help="Do not wait until the result is on the disk."),
    click.option("--reproducible", is_flag=True, help="The same source gives the same bytes, as of SOURCE_DATE_EPOCH."),
    click.option(
        "--utility-vm",
        type=click.Choice(["auto", "process", "keep"]),
        default="auto",
        show_default=True,
        help="Prepare a utility VM for booting from the CIM (auto: if it is complete and newer than build 20348).",
    ),
    click.option("--no-scratch-disks", is_flag=True, help="Do not create scratch disks in the base layer."),
    click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Threads; by default one a CPU, up to 2."),
    click.option("-q", "--quiet", is_flag=True, help="No progress, only the result."),
    click.option("as_json", "--json", is_flag=True, help="One JSON object in a line for each event, the summary last."),
)


def import_options(command: _Command) -> _Command:
    """What all commands that import take."""
    for option in reversed(_IMPORT_OPTIONS):
        command = option(command)
    return command


@contextlib.contextmanager
def stoppable() -> Iterator[CancellationToken]:
    """A token that Ctrl-C and the signals to end cancel; the program then ends as if the signal had ended it."""
    token = CancellationToken()
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if token.cancelled:
            raise KeyboardInterrupt  # for the second time: at once
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
    """What shows the events of an import: records, bars on a terminal, few lines in a log, or nothing.

    ``by_layer`` gives a log one line for each layer, beside those that say that the program is still at work.
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
    """Each event as a JSON object in a line; progress not more often than five times a second."""

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
    """A line for each layer that is there, and one now and then while a large one is being made."""

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
            click.echo(f"{_label(event)}: was there already", err=True)


class _Bars:
    """A bar for each layer: bytes, rate and time left."""

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
            click.echo(f"{_label(event)}: was there already", err=True)

    def close(self) -> None:
        """Leave the last bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _new_bar(label: str, size: int | None) -> Any:
    from tqdm import tqdm  # noqa: PLC0415  only for people who watch

    tqdm.monitor_interval = 0  # a thread of its own that nothing here needs
    width = shutil.get_terminal_size().columns - 1  # 80 where the terminal does not know
    return tqdm(total=size, desc=label, unit="B", unit_scale=True, unit_divisor=1024, ncols=width)


def _label(event: LayerStarted | LayerReused) -> str:
    name = (event.digest or "").partition(":")[2][:_SHOWN_DIGITS] or event.layer
    return f"layer {event.number} of {event.count} {name}" if event.count > 1 else f"layer {name}"
