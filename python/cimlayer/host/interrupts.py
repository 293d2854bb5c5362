"""Signals while something must be done to its end: what their handlers raise waits until then."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps, in enumerations that take their time
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cimlayer.errors import OperationCancelledError
from cimlayer.events import CancellationToken

_NUMBERS = tuple(_signal.valid_signals())
_Handler = Callable[[int, FrameType | None], Any]


class _Deferral:
    """Handlers of signals that raise nothing for a while; the first exception is kept."""

    letting_through = False  # for all of them: there is one main thread

    def __init__(self, cancel: CancellationToken | None) -> None:
        self.raised: BaseException | None = None
        self._cancel = cancel
        self._active = True
        self._handlers: dict[int, _Handler] = {}

    def begin(self) -> None:
        for number in _NUMBERS:
            handler = _signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._handle)

    def end(self) -> None:
        self._active = False
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handlers[number](number, frame)
        except BaseException as error:
            if not self._active or _Deferral.letting_through:
                _Deferral.letting_through = False  # once: what is cleaned up then is not interrupted
                raise
            self.raised = self.raised or error
            if self._cancel is not None:
                self._cancel.cancel()


@contextmanager
def deferred(cancel: CancellationToken | None = None) -> Iterator[None]:
    """What handlers of signals raise, such as KeyboardInterrupt, is raised when the ``with`` block has ended.

    The handlers themselves run at once. What they raise cancels ``cancel``, so that a block which looks at it ends
    soon; its OperationCancelledError is then replaced. Signals are handled in the main thread alone, so in another one
    there is nothing to defer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deferral = _Deferral(cancel)
    try:
        deferral.begin()
        try:
            yield
        except OperationCancelledError:
            if deferral.raised is None:
                raise
    finally:
        deferral.end()
        if deferral.raised is not None:
            raise deferral.raised


@contextmanager
def interruptible() -> Iterator[None]:
    """In a block of :func:`deferred`: for calls to others' code, which may wait for ever and looks at no token."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Deferral.letting_through = True
    try:
        yield
    finally:
        _Deferral.letting_through = False
