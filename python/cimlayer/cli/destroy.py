"""``cimlayer destroy``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import require_layer
from cimlayer.cli.waiting import wait_option
from cimlayer.layer.destroy import destroy_cim_layer, is_unfinished


@click.command("destroy")
@click.argument("layer", metavar="LAYER", type=HOST_PATH)
@click.option(
    "--force", is_flag=True, help="Delete it even if it is damaged, or other layers depend on it; those are lost."
)
@wait_option
def command(layer: str, force: bool, lock_timeout: float) -> None:
    """Delete a layer and its CIM.

    Deletes the .cim file, the CIM's own region files and the layer directory, but no files of its parents. A layer
    that other layers depend on, or may depend on, is not deleted unless --force is given. Also deletes what a killed
    process left of a layer.
    """
    if not is_unfinished(layer):
        require_layer(layer)
    destroy_cim_layer(layer, force=force, lock_timeout=lock_timeout)
