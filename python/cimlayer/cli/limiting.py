"""``--limit``, for the commands that take untrusted input."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

import click

from cimlayer.limits import Limits

_Command = TypeVar("_Command", bound=Callable[..., object])

SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NAMES = [each.name for each in fields(Limits)]


def limit_option(command: _Command) -> _Command:
    """The option; the command gets ``limits``."""
    option = click.option(
        "limits",
        "--limit",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_limits,
        shell_complete=_complete,
        help=f"Limit what the input may use: {', '.join(_NAMES)} (bytes: K, M, G or T suffix). Repeatable.",
    )
    return option(command)


def _complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [f"{name}=" for name in _NAMES if name.startswith(incomplete)]


def _limits(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> Limits:
    values = {}
    for text in texts:
        name, _, value = text.partition("=")
        number = re.fullmatch(r"([0-9]{1,19})([KMGT]?)", value)
        if name not in _NAMES:
            raise click.BadParameter(f"Unknown limit {name!r}; expected one of: {', '.join(_NAMES)}.")
        if number is None or (number[2] and name != "bytes"):
            raise click.BadParameter(f"Invalid value {value!r} for {name}.")
        values[name] = int(number[1]) * SIZE_UNITS[number[2]]
    try:
        return Limits(**values)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
