"""The options that all commands that import have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])
_IMPORT_OPTIONS = (
    click.option("--no-sync", is_flag=True, help="Do not wait until the result is on the disk."),
    click.option("--reproducible", is_flag=True, help="The same source gives the same bytes, as of SOURCE_DATE_EPOCH."),
    click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Threads; by default one a CPU, up to 2."),
    click.option("-q", "--quiet", is_flag=True, help="No progress, only the result."),
    click.option("as_json", "--json", is_flag=True, help="One JSON object in a line for each event, the summary last."),
)


def import_options(command: _Command) -> _Command:
    """What all commands that import take."""
    for option in reversed(_IMPORT_OPTIONS):
        command = option(command)
    return command
