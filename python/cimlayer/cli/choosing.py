"""Options that choose entries, and say what became of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.image.patterns import read_patterns

_Command = TypeVar("_Command", bound=Callable[..., Any])


def exclude_options(command: _Command) -> _Command:
    """``--exclude`` and ``--exclude-from``, whose patterns come as ``exclude``, in the order of the command line."""

    def add(ctx: click.Context, _parameter: click.Parameter, patterns: tuple[str, ...]) -> None:
        ctx.params.setdefault("exclude", []).extend(patterns)

    def add_files(ctx: click.Context, parameter: click.Parameter, files: tuple[str, ...]) -> None:
        for file in files:
            try:
                add(ctx, parameter, tuple(read_patterns(file)))
            except UnicodeDecodeError as error:
                raise click.BadParameter(f"{file} is not UTF-8", ctx, parameter) from error

    click.option(
        "--exclude-from",
        metavar="FILE",
        type=HOST_PATH,
        multiple=True,
        expose_value=False,
        callback=add_files,
        help="Leave out what the patterns in FILE match, one a line. Repeatable.",
    )(command)
    click.option(
        "--exclude",
        metavar="PATTERN",
        multiple=True,
        expose_value=False,
        callback=add,
        help="Leave out what PATTERN, as in a .gitignore, matches. Repeatable.",
    )(command)
    return command
