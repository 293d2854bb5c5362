"""``cimlayer unmount``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.image.fuse import unmount_with_fuse


@click.command("unmount")
@click.argument("directory", metavar="DIR", type=HOST_PATH)
def command(directory: str) -> None:
    """Unmount what `cimlayer mount` has mounted on DIR.

    No file in it may be open, and no process may have a directory in it as its own.
    """
    unmount_with_fuse(directory)
