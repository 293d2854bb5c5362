"""``cimlayer destroy``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import require_layer
from cimlayer.layer.destroy import destroy_cim_layer


@click.command("destroy")
@click.argument("layer", metavar="LAYER", type=HOST_PATH)
@click.option("--force", is_flag=True, help="Even if others are forked from it, which are lost, or if it is damaged.")
def command(layer: str, force: bool) -> None:
    """Remove a layer with its image.

    The .cim file, the image's own region files and the layer directory are deleted; the files of its parents stay.
    A layer that others are forked from is kept unless --force is given.
    """
    require_layer(layer)
    destroy_cim_layer(layer, force=force)
