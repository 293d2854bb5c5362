"""``cimlayer diff``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.output import Output
from cimlayer.cli.progress import progress_of
from cimlayer.image.compare import diff_images
from cimlayer.image.entrynames import shown

_SIGNS = {"added": "+", "removed": "-", "changed": "M"}


@click.command("diff")
@click.argument("older", metavar="OLD", type=HOST_PATH)
@click.argument("newer", metavar="NEW", type=HOST_PATH)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything differs.")
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per path, one per line.")
@click.pass_context
def command(ctx: click.Context, older: str, newer: str, exit_code: bool, as_json: bool) -> None:
    """Compare two CIMs.

    + marks paths only in NEW, - only in OLD, M those in both that differ, followed by what differs. Directories end
    with a slash. Comparing a layer with one of its parents is fast: only rewritten records are read.
    """
    differs = False
    with open_image(older) as old, open_image(newer) as new, progress_of("comparing") as bar:
        output = Output(before_line=None if bar is None else bar.hide)
        for change in diff_images(old, new, progress=None if bar is None else bar.show):
            differs = True
            path = shown(change.path)
            if as_json:
                output.json({"change": change.kind, "path": path, "aspects": list(change.aspects)})
                continue
            entry = change.entry or change.older_entry
            slash = "/" if entry is not None and entry.is_directory and path != "/" else ""
            aspects = f" ({', '.join(change.aspects)})" if change.aspects else ""
            output.line((f"{_SIGNS[change.kind]} {path}{slash}", change.kind), aspects)
    if differs and exit_code:
        ctx.exit(1)
