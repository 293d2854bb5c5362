"""``cimlayer destroy``."""

from __future__ import annotations

import errno

import click

from cimlayer.layer import destroy_cim_layer
from cimlayer.paths import get_cim_path_from_layer, is_cim_layer


@click.command("destroy")
@click.argument("layer", metavar="LAYER")
@click.option("--force", is_flag=True, help="Even if other layers are forked from it: they are lost.")
def command(layer: str, force: bool) -> None:
    """Remove a layer with its image.

    The .cim file, the image's own region files and the layer directory are deleted; the files of its parents stay.
    A layer that others are forked from is kept unless --force is given.
    """
    if not is_cim_layer(layer):
        image = get_cim_path_from_layer(layer)
        raise FileNotFoundError(errno.ENOENT, f"no CIM layer, nothing was removed: {image} is not there", layer)
    destroy_cim_layer(layer, force=force)
