"""OpenTelemetry spans if its API is installed, otherwise nothing."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import time
from collections.abc import Iterator
from typing import Any

_log = logging.getLogger("cimlayer")


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
        _log.debug("%s (%s): %.3f s", name, facts, time.monotonic() - begun)


@contextlib.contextmanager
def _traced(name: str, attributes: dict[str, str | int | bool]) -> Iterator[None]:
    tracer = _tracer()
    if tracer is None:
        yield
        return
    named = {f"cimlayer.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(f"cimlayer.{name}", attributes=named):
        yield
