"""``cimlayer create``."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

import click

from cimlayer.cli.choosing import exclude_options
from cimlayer.cli.eventprogress import files_progress
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output, amount, counted, warn
from cimlayer.cli.stopping import stoppable
from cimlayer.cli.waiting import wait_option
from cimlayer.image.create import create_image
from cimlayer.image.stores import Metadata
from cimlayer.limits import Limits


@click.command("create")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("source", metavar="SOURCE", type=HOST_PATH)
@exclude_options
@click.option("--case-rename", is_flag=True, help="Number names that differ only in case, instead of failing.")
@click.option("--skip-special", is_flag=True, help="Skip devices, FIFOs, sockets and names that a CIM cannot hold.")
@click.option(
    "--metadata",
    type=click.Choice(get_args(Metadata)),
    default="auto",
    show_default=True,
    help="What to take from a folder besides its files: NTFS's own metadata, SOURCE.metadata, or xattrs.",
)
@click.option("--parent", metavar="CIM", type=HOST_PATH, help="Fork from this CIM: SOURCE comes on top of what it has.")
@click.option("--root-directory", metavar="DIR", default="", help="Where everything goes in the CIM.")
@click.option(
    "--security-descriptor", metavar="SDDL", help="The security descriptor of everything that SOURCE has none for."
)
@click.option("--wim-image", metavar="NAME|N", help="Which image of a WIM to take, if it has several.")
@click.option("--no-sync", is_flag=True, help="Do not wait for the data to reach the disk.")
@click.option("--reproducible", is_flag=True, help="Same input, same bytes; missing times are SOURCE_DATE_EPOCH.")
@wait_option
@limit_option
@click.option("as_json", "--json", is_flag=True, help="Print the summary as one JSON object.")
def command(
    image: str,
    source: str,
    exclude: list[str],
    case_rename: bool,
    skip_special: bool,
    metadata: Metadata,
    parent: str | None,
    root_directory: str,
    security_descriptor: str | None,
    wim_image: str | None,
    no_sync: bool,
    reproducible: bool,
    lock_timeout: float,
    limits: Limits,
    as_json: bool,
) -> None:
    """Create a CIM from a folder, a plain tar, a ZIP, an MSIX package or a WIM.

    CIM is the .cim file to create; its region files go beside it. SOURCE is a folder, a tar, plain or compressed with
    gzip or zstd, a ZIP, an MSIX or APPX package, or a WIM; - reads a tar from standard input. What extract keeps of a
    CIM comes back. Only the CIM is created, not a layer: no hives and no disks are processed.
    """
    output = Output()
    with stoppable() as cancel, files_progress("creating") as progress:
        done = create_image(
            image,
            source,
            metadata=metadata,
            exclude=exclude,
            case_rename=case_rename,
            skip_special=skip_special,
            parent=parent,
            root_directory=root_directory,
            security_descriptor=security_descriptor,
            wim_image=wim_image,
            sync=not no_sync,
            reproducible=reproducible,
            limits=limits,
            lock_timeout=lock_timeout,
            progress=progress,
            cancel=cancel,
        )
    for text in done.warnings:
        warn(text)
    for text in done.skipped:
        warn(f"skipped: {text}")
    with output.after(f"{image} was created"):
        if as_json:
            output.json({"image": image} | asdict(done))
        else:
            output.line(f"{image}: {counted(done.entries, 'entry', 'entries')}, {amount(done.bytes)} of files")
            for path, placed in done.renamed.items():
                output.line(f"differs from another name in case only: {path} stored as {placed}")
