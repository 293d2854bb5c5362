"""``cimlayer destroy``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import require_layer
from cimlayer.layer.destroy import destroy_cim_layer


@click.command("destroy")
@click.argument("layer", metavar="LAYER", type=HOST_PATH)
@click.option(
    "--force", is_flag=True, help="Delete it even if it is damaged, or other layers depend on it; those are lost."
)
def command(layer: str, force: bool) -> None:
    """Delete a layer and its CIM.

    Deletes the .cim file, the CIM's own region files and the layer directory, but no files of its parents. A layer
    that other layers depend on is not deleted unless --force is given.
    """
    require_layer(layer)
    destroy_cim_layer(layer, force=force)
