"""``cimlayer bcd``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.output import Output
from cimlayer.formats.bcd import BcdStore, describe


@click.group("bcd")
def command() -> None:
    """Look into boot configuration stores."""


@command.command()
@click.argument("file", metavar="FILE", type=HOST_PATH)
def show(file: str) -> None:
    """Print a store as bcdedit does, devices decoded."""
    Output().text(describe(BcdStore.open(file)).rstrip("\n"))
