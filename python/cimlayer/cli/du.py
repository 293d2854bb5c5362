"""``cimlayer du``."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import click

from cimfs_ext.reader import ImageReader
from cimlayer.cli.entries import size_options, size_text
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.innerpaths import INNER_PATH
from cimlayer.cli.output import Output
from cimlayer.image.files import ImageDirectory
from cimlayer.image.inspect import image_chain
from cimlayer.image.selection import each_named
from cimlayer.image.usage import image_usage

_TITLES = {
    "bytes": "size",
    "stored_bytes": "stored",
    "parent_bytes": "in parents",
    "disk_bytes": "on disk",
    "freed_bytes": "freed",
}
_SIZES = ("bytes", "stored_bytes", "parent_bytes", "freed_bytes")


@click.command("du")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=INNER_PATH)
@click.option("-d", "--max-depth", metavar="N", type=click.IntRange(min=0), help="Show at most N levels below PATH.")
@click.option("-l", "long", is_flag=True, help="Also show what is stored, shared with parents, and would be freed.")
@click.option("--layers", is_flag=True, help="Show the layers that the CIM consists of, instead of directories.")
@size_options(human=True)
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per directory or layer, one per line.")
def command(
    image: str, paths: tuple[str, ...], max_depth: int | None, long: bool, layers: bool, human: bool, as_json: bool
) -> None:
    """Show how much space directories and layers take.

    For each directory, the size of all files and alternate streams below it, a file with hard links once. -l adds
    what is stored of that (equal content once), the part that the parents have, and the part that would be freed if
    the layer were made without the directory. --layers shows for each layer how much of its content the CIM uses,
    its size on disk, and how much removing it would free: nothing while another CIM uses it.
    """
    if layers and (paths or max_depth is not None or long):
        raise click.UsageError("--layers takes no PATH, -d or -l.")
    output = Output()
    with open_image(image) as reader:
        if layers:
            rows = _layers(reader)
            columns, last = ["stored_bytes", "disk_bytes", "freed_bytes"], "layer"
        else:
            rows = _directories(reader, paths or ("",), max_depth)
            columns, last = list(_SIZES if long else _SIZES[:1]), "path"
    if as_json:
        for row in rows:
            output.json(row)
        return
    if len(columns) > 1:
        output.line("".join(f"{_TITLES[name]:>12}" for name in columns) + f"  {last}")
    for row in rows:
        sizes = "".join(f"{size_text(row[name], human):>12}" for name in columns)
        output.line(f"{sizes}  {row[last] or row['image'] or '(missing: region set ' + row['region_set'] + ')'}")


def _directories(image: ImageReader, paths: tuple[str, ...], max_depth: int | None) -> list[dict[str, Any]]:
    tops = []
    for path in paths:
        found = [entry for _, entry in each_named(image, [path]) if entry.is_directory]
        if not found:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        tops += [entry.file_id for entry in found]
    directories = image_usage(image).directories
    rows = []
    for top in tops:
        last = next(n for n, one in enumerate(directories) if one.file_id == top)
        first = last
        while first and directories[first - 1].depth > directories[last].depth:
            first -= 1
        for one in directories[first : last + 1]:
            if max_depth is None or one.depth - directories[last].depth <= max_depth:
                rows.append({name: getattr(one, name) for name in ("path", *_SIZES)})
    return rows


def _layers(image: ImageReader) -> list[dict[str, Any]]:
    """From the image's own layer down to the base."""
    usage = image_usage(image)
    path = Path(image.directory, image.name)
    directory = ImageDirectory(path.parent)
    rows = []
    region = 0
    for link, one in zip(reversed(image_chain(path)), image.region_sets, strict=True):
        size = sum(file.size or 0 for file in directory.files_of(one))
        rows.append(
            {
                "layer": link.layer and str(link.layer),
                "image": link.image and str(link.image),
                "region_set": str(one.set_id),
                "stored_bytes": sum(usage.region_bytes.get(region + n, 0) for n in range(one.count)),
                "disk_bytes": size,
                "freed_bytes": size if len(directory.users(one.set_id)) < 2 else 0,
            }
        )
        region += one.count
    return rows[::-1]
