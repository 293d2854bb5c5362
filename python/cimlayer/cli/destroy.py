"""``cimlayer destroy``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import require_layer
from cimlayer.cli.waiting import wait_option
from cimlayer.layer.destroy import destroy_cim_layer, is_unfinished


@click.command("destroy")
@click.argument("layer", metavar="LAYER", type=HOST_PATH)
@click.option("--force", is_flag=True, help="Even if others are forked from it, which are lost, or if it is damaged.")
@wait_option
def command(layer: str, force: bool, lock_timeout: float) -> None:
    """Remove a layer with its image.

    The .cim file, the image's own region files and the layer directory are deleted; the files of its parents stay.
    A layer that others are forked from, or may be, is kept unless --force is given. What a process that was killed
    has left of a layer is removed.
    """
    if not is_unfinished(layer):
        require_layer(layer)
    destroy_cim_layer(layer, force=force, lock_timeout=lock_timeout)
