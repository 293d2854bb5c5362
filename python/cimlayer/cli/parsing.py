"""Options whose values have a form of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cimlayer.image.patterns import Patterns


class Parsed(click.ParamType):  # type: ignore[type-arg]  # which takes none before click 8.4
    """A value that a function makes of the text; its ValueError is a usage error."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value, or what is wrong with the text."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


def one_pattern(text: str) -> Patterns:
    """A pattern such as ``*.dll`` or ``Files/**/*.dll``."""
    return Patterns([text])
