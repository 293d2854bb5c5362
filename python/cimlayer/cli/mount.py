"""``cimlayer mount``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import image_path
from cimlayer.image.fuse import mount_with_fuse


@click.command("mount")
@click.argument("image", metavar="IMAGE", type=HOST_PATH)
@click.argument("directory", metavar="DIR", type=HOST_PATH)
def command(image: str, directory: str) -> None:
    """Show an image as a read-only file system.

    The image appears on the empty directory DIR until Ctrl-C, or `fusermount -u DIR` elsewhere. This needs FUSE, and
    its binding mfusepy, which the extra "fuse" brings: pip install '.[fuse]' in a clone.
    """
    mount_with_fuse(image_path(image), directory)
