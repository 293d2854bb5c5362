"""``cimlayer extract``."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

import click

from cimlayer.cli.choosing import exclude_options
from cimlayer.cli.eventprogress import files_progress
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output, amount, counted
from cimlayer.cli.stopping import stoppable
from cimlayer.image.extract import Existing, extract
from cimlayer.image.extraction import Extraction
from cimlayer.image.kinds import KINDS
from cimlayer.image.stores import Metadata
from cimlayer.limits import Limits


@click.command("extract")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=HOST_PATH)  # DEST may stand here
@click.argument("destination", metavar="DEST", type=HOST_PATH)
@exclude_options
@click.option("--strip", metavar="N", type=click.IntRange(min=0), default=0, help="Drop N leading path components.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--skip-existing", is_flag=True, help="Skip existing files of the same size and time.")
@click.option(
    "--metadata",
    type=click.Choice(get_args(Metadata)),
    default="auto",
    show_default=True,
    help="Keep streams, EAs, descriptors, attributes and reparse data: as NTFS does, in DEST.metadata, or as xattrs.",
)
@click.option("--symlinks", is_flag=True, help="Create relative symbolic links that stay inside DEST.")
@click.option("--rebase", is_flag=True, help="Also create absolute links and mount points, as links inside DEST.")
@click.option(
    "--jobs", metavar="N", type=click.IntRange(min=1), help="Number of threads (default: one per CPU, at most 4)."
)
@limit_option
@click.option("as_json", "--json", is_flag=True, help="Print the summary as one JSON object.")
def command(
    image: str,
    paths: tuple[str, ...],
    destination: str,
    exclude: list[str],
    strip: int,
    overwrite: bool,
    skip_existing: bool,
    metadata: Metadata,
    symlinks: bool,
    rebase: bool,
    jobs: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Extract files from a CIM.

    PATH is a file, or a directory whose contents go into DEST; without PATH, everything is extracted. Several PATHs, or
    patterns such as '*.dll', keep their paths in the CIM, less the components that --strip drops. DEST is created if it
    does not exist; nothing in it is replaced unless --overwrite is given. Content, times, holes and hard links are
    kept; what DEST cannot hold is counted. Symbolic links and mount points become empty files and directories unless
    --symlinks or --rebase is given, or DEST is on NTFS. Nothing is written outside DEST.
    """
    if overwrite and skip_existing:
        raise click.UsageError("--overwrite and --skip-existing exclude each other.")
    existing: Existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    with open_image(image) as reader, stoppable() as cancel, files_progress("extracting") as progress:
        done = extract(
            reader,
            paths if len(paths) > 1 else "".join(paths),
            destination,
            metadata=metadata,
            exclude=exclude,
            strip=strip,
            existing=existing,
            symlinks=symlinks,
            rebase=rebase,
            jobs=jobs,
            limits=limits,
            progress=progress,
            cancel=cancel,
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
    if done.skipped:
        output.line(f"{counted(done.skipped, 'file')} already there")
    for path, name in done.renamed.items():
        output.line(f"name too long: {path} extracted as {name}")
    if done.unresolved_links:
        links = counted(len(done.unresolved_links), "symbolic link")
        output.line(f"{links} not created (not relative, or leading outside): extracted empty")
    lost = [f"{kind.label} ({done.lost[kind.name]})" for kind in KINDS if kind.name in done.lost]
    if lost:
        output.line(f"not kept: {', '.join(lost)}")
