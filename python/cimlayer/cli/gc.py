"""``cimlayer gc``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.output import Output, amount, counted
from cimlayer.image.files import CIM_DIRECTORY
from cimlayer.image.garbage import collect_garbage


@click.command("gc")
@click.argument("directory", metavar="DIR", type=HOST_PATH)
@click.option("--delete", is_flag=True, help="Delete the files; without this option they are only listed.")
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object.")
def command(directory: str, delete: bool, as_json: bool) -> None:
    """Find and delete files that no CIM refers to.

    DIR contains CIMs, or layers with a cim-layers directory beside them. Lists, or with --delete deletes, the region
    and object ID files and temporary files that a crash left. Refuses to run while a CIM is being written there, or
    if a CIM cannot be read.
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
    verdict = "deleted" if delete else "can be deleted with --delete"
    output.line(f"{counted(len(found), 'file')}, {amount(size)}, {verdict}" if found else "nothing to delete")
