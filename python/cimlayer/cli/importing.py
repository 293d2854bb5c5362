"""The options that all importing commands have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from cimlayer.cli.waiting import wait_option

_Command = TypeVar("_Command", bound=Callable[..., Any])
_WRITING = (
    click.option("--no-sync", is_flag=True, help="Do not wait for the data to reach the disk."),
    click.option("--reproducible", is_flag=True, help="Same input, same bytes; missing times are SOURCE_DATE_EPOCH."),
    click.option(
        "--utility-vm",
        type=click.Choice(["auto", "process", "keep"]),
        default="auto",
        show_default=True,
        help="Prepare a utility VM for booting from the CIM (auto: if it is complete and newer than build 20348).",
    ),
    click.option("--no-scratch-disks", is_flag=True, help="Do not create scratch disks in the base layer."),
)
_WORKING = (
    click.option(
        "--jobs", metavar="N", type=click.IntRange(min=1), help="Number of threads (default: one per CPU, at most 2)."
    ),
    wait_option,
)
_SHOWING = (click.option("as_json", "--json", is_flag=True, help="Print events and the final summary as JSON lines."),)


def import_options(command: _Command) -> _Command:
    """Add these options to a command."""
    return _with(command, (*_WRITING, *_WORKING, *_SHOWING))


def fleet_options(command: _Command) -> _Command:
    """Add those of them that do not say how one process works."""
    return _with(command, (*_WRITING, *_SHOWING))


def _with(command: _Command, options: Sequence[Callable[[_Command], _Command]]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command
