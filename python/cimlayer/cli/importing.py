"""The options that all importing commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cimlayer.cli.waiting import wait_option

_Command = TypeVar("_Command", bound=Callable[..., Any])
_IMPORT_OPTIONS = (
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
    click.option(
        "--jobs", metavar="N", type=click.IntRange(min=1), help="Number of threads (default: one per CPU, at most 2)."
    ),
    wait_option,
    click.option("as_json", "--json", is_flag=True, help="Print events and the final summary as JSON lines."),
)


def import_options(command: _Command) -> _Command:
    """Add these options to a command."""
    for option in reversed(_IMPORT_OPTIONS):
        command = option(command)
    return command
