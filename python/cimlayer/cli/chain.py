"""``cimlayer chain``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import image_path
from cimlayer.cli.output import Output
from cimlayer.image.inspect import image_chain


@click.command("chain")
@click.argument("image", metavar="IMAGE", type=HOST_PATH)
@click.option("as_json", "--json", is_flag=True, help="One JSON object for each layer, each in a line.")
def command(image: str, as_json: bool) -> None:
    """List a layer and its parents.

    From the layer itself down to the base, one in a line: the layer directory where there is one, else the image.
    Parents are found by their region sets, so it does not matter whether they were renamed.
    """
    output = Output()
    for link in image_chain(image_path(image)):
        if as_json:
            output.json(
                {
                    "region_set": str(link.set_id),
                    "image": link.image and str(link.image),
                    "layer": link.layer and str(link.layer),
                }
            )
        else:
            output.line(str(link.layer or link.image or f"(not there: region set {link.set_id})"))
