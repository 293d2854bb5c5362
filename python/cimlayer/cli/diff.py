"""``cimlayer diff``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.output import Output
from cimlayer.image.compare import diff_images
from cimlayer.image.entrynames import shown

_SIGNS = {"added": "+", "removed": "-", "changed": "M"}


@click.command("diff")
@click.argument("older", metavar="OLD", type=HOST_PATH)
@click.argument("newer", metavar="NEW", type=HOST_PATH)
@click.option("as_json", "--json", is_flag=True, help="One JSON object for each path, each in a line.")
def command(older: str, newer: str, as_json: bool) -> None:
    """Show what distinguishes two images.

    + is in NEW alone, - in OLD alone, M is in both and differs, in brackets in what. Directories end in a slash.
    Between a layer and its parents this is quick: only what was written anew is looked at.
    """
    output = Output()
    with open_image(older) as old, open_image(newer) as new:
        for change in diff_images(old, new):
            path = shown(change.path)
            if as_json:
                output.json({"change": change.kind, "path": path, "aspects": list(change.aspects)})
                continue
            entry = change.entry or change.older_entry
            slash = "/" if entry is not None and entry.is_directory and path != "/" else ""
            aspects = f" ({', '.join(change.aspects)})" if change.aspects else ""
            output.line(f"{_SIGNS[change.kind]} {path}{slash}{aspects}")
