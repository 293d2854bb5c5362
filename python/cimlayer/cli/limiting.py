"""``--limit``, which the commands have that take what comes from strangers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

import click

from cimlayer.limits import Limits

_Command = TypeVar("_Command", bound=Callable[..., object])

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NAMES = [each.name for each in fields(Limits)]


def limit_option(command: _Command) -> _Command:
    """The option; the command gets ``limits``."""
    option = click.option(
        "limits",
        "--limit",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_limits,
        help=f"What the input may cost at most: {', '.join(_NAMES)} (bytes with K, M, G or T). Repeatable.",
    )
    return option(command)


def _limits(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> Limits:
    values = {}
    for text in texts:
        name, _, value = text.partition("=")
        number = re.fullmatch(r"([0-9]{1,19})([KMGT]?)", value)
        if name not in _NAMES:
            raise click.BadParameter(f"{name!r} is no limit; there are: {', '.join(_NAMES)}.")
        if number is None or (number[2] and name != "bytes"):
            raise click.BadParameter(f"{value!r} is no value for {name}.")
        values[name] = int(number[1]) * _UNITS[number[2]]
    try:
        return Limits(**values)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
