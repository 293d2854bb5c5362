"""The log, and OpenTelemetry spans if its API is installed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import time
from collections.abc import Iterator
from typing import Any

DEBUG, INFO, WARNING = 10, 20, 30  # as in logging


def log(level: int, text: str, *values: object, exc_info: bool = False) -> None:
    """Log a line as the caller's.

    Where nothing has loaded logging, which takes longer than many a command, only warnings have anywhere to go.
    """
    if level < WARNING and "logging" not in sys.modules:
        return
    import logging  # noqa: PLC0415

    logging.getLogger("cimlayer").log(level, text, *values, exc_info=exc_info, stacklevel=2)


@functools.cache
def _tracer() -> Any:
    try:
        trace = importlib.import_module("opentelemetry.trace")
    except ImportError:
        return None
    return trace.get_tracer("cimlayer")


@contextlib.contextmanager
def span(name: str, **attributes: str | int | bool) -> Iterator[None]:
    """A span around a block, and a line in the log at its end; attribute names get the prefix ``cimlayer.``."""
    begun = time.monotonic()
    try:
        with _traced(name, attributes):
            yield
    finally:
        facts = ", ".join(f"{key} {value}" for key, value in attributes.items())
        log(DEBUG, "%s (%s): %.3f s", name, facts, time.monotonic() - begun)


@contextlib.contextmanager
def _traced(name: str, attributes: dict[str, str | int | bool]) -> Iterator[None]:
    tracer = _tracer()
    if tracer is None:
        yield
        return
    named = {f"cimlayer.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(f"cimlayer.{name}", attributes=named):
        yield
