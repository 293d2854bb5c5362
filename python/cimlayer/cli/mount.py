"""``cimlayer mount``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.image.fuse import mount_with_fuse


@click.command("mount")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("directory", metavar="DIR", type=HOST_PATH)
def command(image: str, directory: str) -> None:
    """Mount a CIM as a read-only file system.

    The CIM is mounted on the empty directory DIR until Ctrl-C or `fusermount -u DIR`. Requires FUSE and the Python
    package mfusepy (extra "fuse": pip install '.[fuse]' in a clone).
    """
    mount_with_fuse(image, directory)
