"""``cimlayer gc``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.output import Output, amount
from cimlayer.image.files import CIM_DIRECTORY
from cimlayer.layer.garbage import broken_images, collect_garbage


@click.command("gc")
@click.argument("directory", metavar="DIR", type=HOST_PATH)
@click.option("--delete", is_flag=True, help="Remove the files; without it they are only listed.")
@click.option("as_json", "--json", is_flag=True, help="One JSON object.")
def command(directory: str, delete: bool, as_json: bool) -> None:
    """Find and remove what killed processes have left.

    DIR holds images, or layers whose images lie in cim-layers below it. Region and object ID files that no image
    refers to, drafts, and directories of layers that were half written or half destroyed are listed, and removed with
    --delete; what running imports have is left alone. Images that cannot be read because their parents' files are gone
    are listed too. If an image itself cannot be read, nothing is done.
    """
    below = Path(directory, CIM_DIRECTORY)
    images = below if below.is_dir() else Path(directory)
    found = collect_garbage(images, delete=delete)
    broken = broken_images(images)
    output = Output()
    size = sum(file.size or 0 for file in found)
    if as_json:
        files = [asdict(file) for file in found]
        output.json({"deleted": delete, "files": files, "bytes": size, "broken": broken})
        return
    for file in found:
        output.line(f"{file.name}  {'layer directory' if file.size is None else amount(file.size)}")
    for name, missing in broken.items():
        output.line(f"{name}: broken: {missing[0]} is missing; cimlayer destroy removes such a layer")
    verdict = "removed" if delete else "could be removed: --delete does it"
    count = len(found)
    output.line(f"{count} file{'s' * (count != 1)}, {amount(size)}, {verdict}" if found else "nothing to remove")
