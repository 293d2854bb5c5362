"""``cimlayer create``."""

from __future__ import annotations

from dataclasses import asdict

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output, amount
from cimlayer.cli.stopping import stoppable
from cimlayer.image.create import create_image
from cimlayer.limits import Limits


@click.command("create")
@click.argument("image", metavar="IMAGE", type=HOST_PATH)
@click.argument("source", metavar="SOURCE", type=HOST_PATH)
@click.option("--no-sync", is_flag=True, help="Do not wait until the image is on the disk.")
@click.option("--reproducible", is_flag=True, help="The same source gives the same bytes, as of SOURCE_DATE_EPOCH.")
@limit_option
@click.option("as_json", "--json", is_flag=True, help="The summary as one JSON object.")
def command(image: str, source: str, no_sync: bool, reproducible: bool, limits: Limits, as_json: bool) -> None:
    """Make an image from a folder or a plain tar.

    IMAGE is the .cim file to make; its region files go beside it. SOURCE is a folder, or a tar that may be
    compressed with gzip or zstd. There is no layer around the image: no hives, no disks.
    """
    output = Output()
    with stoppable() as cancel:
        done = create_image(image, source, sync=not no_sync, reproducible=reproducible, limits=limits, cancel=cancel)
    if as_json:
        output.json({"image": image} | asdict(done))
    else:
        output.line(f"{image}: {done.entries} entries, {amount(done.bytes)} of files")
