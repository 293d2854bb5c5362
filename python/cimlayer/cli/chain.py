"""``cimlayer chain``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.output import Output
from cimlayer.image.inspect import image_chain


@click.command("chain")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per layer, one per line.")
def command(image: str, as_json: bool) -> None:
    """List a layer and its parents.

    One per line, from the layer itself down to the base: the layer directory if it exists, otherwise the CIM.
    Parents are found by their region sets, even if they were renamed.
    """
    output = Output()
    for link in image_chain(image):
        if as_json:
            output.json(
                {
                    "region_set": str(link.set_id),
                    "image": link.image and str(link.image),
                    "layer": link.layer and str(link.layer),
                }
            )
        else:
            output.line(str(link.layer or link.image or f"(missing: region set {link.set_id})"))
