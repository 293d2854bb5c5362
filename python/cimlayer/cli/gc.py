"""``cimlayer gc``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.output import Output, amount
from cimlayer.image.files import CIM_DIRECTORY
from cimlayer.image.garbage import collect_garbage


@click.command("gc")
@click.argument("directory", metavar="DIR", type=HOST_PATH)
@click.option("--delete", is_flag=True, help="Remove the files; without it they are only listed.")
@click.option("as_json", "--json", is_flag=True, help="One JSON object.")
def command(directory: str, delete: bool, as_json: bool) -> None:
    """Find and remove files that no image refers to.

    DIR holds images, or layers whose images lie in cim-layers below it. Region and object ID files that a crash
    left, and temporary files, are listed and with --delete removed. While an image is being written there, or if an
    image cannot be read, nothing is done.
    """
    below = Path(directory, CIM_DIRECTORY)
    found = collect_garbage(below if below.is_dir() else directory, delete=delete)
    output = Output()
    size = sum(file.size or 0 for file in found)
    if as_json:
        output.json({"deleted": delete, "files": [asdict(file) for file in found], "bytes": size})
        return
    for file in found:
        output.line(f"{file.name}  {amount(file.size or 0)}")
    verdict = "removed" if delete else "could be removed: --delete does it"
    output.line(f"{len(found)} files, {amount(size)}, {verdict}" if found else "nothing to remove")
