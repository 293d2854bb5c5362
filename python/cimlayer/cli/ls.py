"""``cimlayer ls``."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.output import Output, mode, type_of
from cimlayer.errors import FormatError
from cimlayer.formats.fileinfo import attribute_names, iso_time
from cimlayer.formats.reparse import parse_reparse_data
from cimlayer.image.entrynames import shown


@click.command("ls")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("path", default="", metavar="[PATH]")
@click.option("long", "-l", is_flag=True, help="Show attributes, size, last write time (UTC) and link targets.")
@click.option("-R", "--recursive", is_flag=True, help="List everything below, with paths from the root.")
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per entry, one per line.")
def command(image: str, path: str, long: bool, recursive: bool, as_json: bool) -> None:
    r"""List the contents of a CIM.

    Directories end with a slash. Attribute letters of -l: d directory, a archive, r read-only, h hidden, s system,
    l reparse point, p sparse.
    """
    output = Output()
    with open_image(image) as reader:
        for inner, entry in _entries(reader, path, recursive):
            if as_json:
                output.json(_record(reader, inner, entry))
                continue
            name = shown(inner) if recursive else entry.name
            if entry.is_directory:
                name += "/"
            output.line(_long_line(reader, name, entry) if long else name)


def _entries(reader: ImageReader, path: str, recursive: bool) -> Iterator[tuple[str, ImageEntry]]:
    top = reader.stat(path)
    where = path.replace("/", "\\").strip("\\")
    if not top.is_directory:
        yield where, top
    elif recursive:
        yield from reader.walk(where)
    else:
        for entry in reader.listdir(where):
            yield f"{where}\\{entry.name}" if where else entry.name, entry


def _long_line(reader: ImageReader, name: str, entry: ImageEntry) -> str:
    time = iso_time(entry.last_write_time)
    written = time[:19].replace("T", " ") if time else "-"
    size = "" if entry.is_directory else str(entry.size)
    target = _target(reader, entry)
    arrow = f" -> {target}" if target else ""
    return f"{mode(entry.attributes)} {size:>12} {written:<19} {name}{arrow}"


def _record(reader: ImageReader, path: str, entry: ImageEntry) -> dict[str, object]:
    record: dict[str, object] = {
        "path": shown(path),
        "type": type_of(entry),
        "size": entry.size,
        "attributes": attribute_names(entry.attributes),
        "last_write_time": iso_time(entry.last_write_time),
        "file_id": entry.file_id,
    }
    if entry.is_reparse_point:
        record["reparse_tag"] = entry.reparse_tag
        record["target"] = _target(reader, entry)
    return record


def _target(reader: ImageReader, entry: ImageEntry) -> str | None:
    if not entry.is_reparse_point:
        return None
    try:
        return parse_reparse_data(reader.reparse_data(entry)).target
    except FormatError:
        return None  # the listing continues; stat shows the error
