"""``cimlayer create``."""

from __future__ import annotations

from dataclasses import asdict

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output, amount, counted
from cimlayer.cli.stopping import stoppable
from cimlayer.cli.waiting import wait_option
from cimlayer.image.create import create_image
from cimlayer.limits import Limits


@click.command("create")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("source", metavar="SOURCE", type=HOST_PATH)
@click.option("--no-sync", is_flag=True, help="Do not wait for the data to reach the disk.")
@click.option("--reproducible", is_flag=True, help="Same input, same bytes; missing times are SOURCE_DATE_EPOCH.")
@wait_option
@limit_option
@click.option("as_json", "--json", is_flag=True, help="Print the summary as one JSON object.")
def command(
    image: str,
    source: str,
    no_sync: bool,
    reproducible: bool,
    lock_timeout: float,
    limits: Limits,
    as_json: bool,
) -> None:
    """Create a CIM from a folder or a plain tar.

    CIM is the .cim file to create; its region files go beside it. SOURCE is a folder, or a tar, plain or compressed
    with gzip or zstd. Only the CIM is created, not a layer: no hives and no disks are processed.
    """
    output = Output()
    with stoppable() as cancel:
        done = create_image(
            image,
            source,
            sync=not no_sync,
            reproducible=reproducible,
            limits=limits,
            lock_timeout=lock_timeout,
            cancel=cancel,
        )
    with output.after(f"{image} was created"):
        if as_json:
            output.json({"image": image} | asdict(done))
        else:
            output.line(f"{image}: {counted(done.entries, 'entry', 'entries')}, {amount(done.bytes)} of files")
