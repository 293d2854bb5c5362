"""``cimlayer extract``."""

from __future__ import annotations

from dataclasses import asdict

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output, amount
from cimlayer.cli.stopping import stoppable
from cimlayer.image.extract import Extraction, Metadata, extract
from cimlayer.limits import Limits


@click.command("extract")
@click.argument("image", metavar="IMAGE", type=HOST_PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]", type=HOST_PATH)  # DEST may stand here
@click.argument("destination", metavar="DEST", type=HOST_PATH)
@click.option(
    "--metadata",
    type=click.Choice(["none", "sidecar", "xattr"]),
    default="none",
    help="Streams, EAs, descriptors, attributes, reparse data: dropped, in DEST.metadata, or as xattrs.",
)
@click.option("--symlinks", is_flag=True, help="Make links of relative symbolic links that stay inside DEST.")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Threads; by default one a CPU, up to 4.")
@limit_option
@click.option("as_json", "--json", is_flag=True, help="The summary as one JSON object.")
def command(
    image: str,
    paths: tuple[str, ...],
    destination: str,
    metadata: Metadata,
    symlinks: bool,
    jobs: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Write files of an image to a directory.

    PATH is a file, or a directory whose content goes into DEST; without it, everything does. DEST is made if it
    is missing, and nothing in it is replaced. Files keep content, times, holes and hard links. Links of the image
    become empty files and directories unless --symlinks is given; nothing is ever written outside DEST.
    """
    if len(paths) > 1:
        raise click.UsageError("One PATH at most.")
    path = paths[0] if paths else ""
    with open_image(image) as reader, stoppable() as cancel:
        done = extract(
            reader, path, destination, metadata=metadata, symlinks=symlinks, jobs=jobs, limits=limits, cancel=cancel
        )
    output = Output()
    if as_json:
        output.json(asdict(done))
    else:
        _print(output, done)


def _print(output: Output, done: Extraction) -> None:
    links = f", {done.hard_links} hard links, {done.symbolic_links} symbolic links"
    output.line(f"{done.files} files, {done.directories} directories{links}: {amount(done.bytes)}")
    for path, name in done.renamed.items():
        output.line(f"too long a name: {path} is {name}")
    if done.unresolved_links:
        output.line(f"{len(done.unresolved_links)} symbolic links lead elsewhere: empty files or directories")
