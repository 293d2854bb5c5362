"""``cimlayer unmount``."""

from __future__ import annotations

import sys

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.image.fuse import unmount_with_fuse
from cimlayer.image.mount import dismount_image, volume_of


@click.command("unmount")
@click.argument("directory", metavar="DIR", type=HOST_PATH)
def command(directory: str) -> None:
    """Unmount a CIM.

    DIR is where `cimlayer mount` has mounted it. No file in it may be open, and no process may have a directory in it
    as its own. On Windows, DIR is the path of the volume that `cimlayer mount` has printed.
    """
    if sys.platform == "win32":
        dismount_image(volume_of(directory))
    else:
        unmount_with_fuse(directory)
