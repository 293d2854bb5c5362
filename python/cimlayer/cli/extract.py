"""``cimlayer extract``."""

from __future__ import annotations

from dataclasses import asdict

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output, amount, counted
from cimlayer.cli.stopping import stoppable
from cimlayer.image.extract import Extraction, Metadata, extract
from cimlayer.limits import Limits


@click.command("extract")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]", type=HOST_PATH)  # DEST may stand here
@click.argument("destination", metavar="DEST", type=HOST_PATH)
@click.option(
    "--metadata",
    type=click.Choice(["none", "sidecar", "xattr"]),
    default="none",
    show_default=True,
    help="Drop streams, EAs, descriptors, attributes and reparse data, or keep them in DEST.metadata or as xattrs.",
)
@click.option("--symlinks", is_flag=True, help="Create relative symbolic links that stay inside DEST.")
@click.option(
    "--jobs", metavar="N", type=click.IntRange(min=1), help="Number of threads (default: one per CPU, at most 4)."
)
@limit_option
@click.option("as_json", "--json", is_flag=True, help="Print the summary as one JSON object.")
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
    """Extract files from a CIM.

    PATH is a file, or a directory whose contents go into DEST; without PATH, everything is extracted. DEST is created
    if it does not exist; nothing in it is replaced. Content, times, holes and hard links are kept. Symbolic links and
    mount points become empty files and directories unless --symlinks is given. Nothing is written outside DEST.
    """
    if len(paths) > 1:
        raise click.UsageError("Give at most one PATH.")
    path = paths[0] if paths else ""
    with open_image(image) as reader, stoppable() as cancel:
        done = extract(
            reader, path, destination, metadata=metadata, symlinks=symlinks, jobs=jobs, limits=limits, cancel=cancel
        )
    output = Output()
    with output.after(f"{destination} was written"):
        if as_json:
            output.json(asdict(done))
        else:
            _print(output, done)


def _print(output: Output, done: Extraction) -> None:
    links = f"{counted(done.hard_links, 'hard link')}, {counted(done.symbolic_links, 'symbolic link')}"
    entries = f"{counted(done.files, 'file')}, {counted(done.directories, 'directory', 'directories')}, {links}"
    output.line(f"{entries}: {amount(done.bytes)}")
    for path, name in done.renamed.items():
        output.line(f"name too long: {path} extracted as {name}")
    if done.unresolved_links:
        links = counted(len(done.unresolved_links), "symbolic link")
        output.line(f"{links} not created (not relative, or leading outside): extracted empty")
