"""``cimlayer gc``."""

from __future__ import annotations

from dataclasses import asdict

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.output import Output, amount, counted
from cimlayer.layer.garbage import broken_images, collect_garbage


@click.command("gc")
@click.argument("directory", metavar="DIR", type=HOST_PATH)
@click.option("--delete", is_flag=True, help="Delete the files; without this option they are only listed.")
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object.")
def command(directory: str, delete: bool, as_json: bool) -> None:
    """Find and delete what killed processes left behind.

    DIR contains CIMs, or layers with a cim-layers directory beside them. Lists, or with --delete deletes, region and
    object ID files and drafts that belong to no CIM, and the directories of layers that were half written or half
    destroyed. The files of running imports are left alone. CIMs that cannot be read because files of their parents
    are missing are reported. Refuses to run if a CIM itself cannot be read.
    """
    found = collect_garbage(directory, delete=delete)
    broken = broken_images(directory)
    output = Output()
    size = sum(file.size or 0 for file in found)
    if as_json:
        files = [asdict(file) for file in found]
        output.json({"deleted": delete, "files": files, "bytes": size, "broken": broken})
        return
    for file in found:
        output.line(f"{file.name}  {'layer directory' if file.size is None else amount(file.size)}")
    for name, missing in broken.items():
        output.line(f"{name}  broken: {missing[0]} is missing; delete the layer with cimlayer destroy")
    verdict = "deleted" if delete else "can be deleted with --delete"
    output.line(f"{counted(len(found), 'file')}, {amount(size)}, {verdict}" if found else "nothing to delete")
