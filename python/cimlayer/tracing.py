"""OpenTelemetry spans if its API is installed, otherwise nothing."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from typing import Any


@functools.cache
def _tracer() -> Any:
    try:
        trace = importlib.import_module("opentelemetry.trace")
    except ImportError:
        return None
    return trace.get_tracer("cimlayer")


@contextlib.contextmanager
def span(name: str, **attributes: str | int | bool) -> Iterator[None]:
    """A span around a block; attribute names get the prefix ``cimlayer.``."""
    tracer = _tracer()
    if tracer is None:
        yield
        return
    named = {f"cimlayer.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(f"cimlayer.{name}", attributes=named):
        yield
