"""``cimlayer bcd``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.output import Output
from cimlayer.formats.bcd import BcdStore, describe


@click.group("bcd")
def command() -> None:
    """Show boot configuration data (BCD) stores."""


@command.command()
@click.argument("file", metavar="FILE", type=HOST_PATH)
def show(file: str) -> None:
    """Print a store as bcdedit does, with device elements decoded."""
    Output().text(describe(BcdStore.open(file)).rstrip("\n"))
