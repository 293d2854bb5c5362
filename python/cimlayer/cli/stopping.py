"""Stopping a long-running command."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import click

from cimlayer.errors import OperationCancelledError
from cimlayer.events import CancellationToken

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last one is Ctrl-Break, on Windows, which has no SIGHUP


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
