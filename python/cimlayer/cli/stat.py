"""``cimlayer stat``."""

from __future__ import annotations

import click

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.cli.entries import size_options
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.innerpaths import INNER_PATH
from cimlayer.cli.output import Output, amount, bytes_text, counted, type_of
from cimlayer.image import kinds
from cimlayer.image.entrynames import shown
from cimlayer.image.kinds import Facts, Fields
from cimlayer.image.selection import each_named


@click.command("stat")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=INNER_PATH)
@size_options(human=False)
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per file, with buffers in base64.")
def command(image: str, paths: tuple[str, ...], human: bool, as_json: bool) -> None:
    """Show all metadata of files.

    PATH is a path or a pattern; / is the root directory. Times are in UTC with all decimals, the security descriptor
    is in SDDL. All names of a file with hard links are listed.
    """
    output = Output()
    with open_image(image) as reader:
        found = list(each_named(reader, paths))
        names = kinds.names_of(reader, {entry.file_id for _, entry in found if not entry.is_directory})
        for number, (path, entry) in enumerate(found):
            facts = _facts(reader, path, entry, names)
            if as_json:
                output.json(facts)
                continue
            if number:
                output.line()
            output.fields(_fields(facts, human))


def _facts(reader: ImageReader, path: str, entry: ImageEntry, names: dict[int, list[str]] | None) -> Facts:
    own = [shown(path)] if entry.is_directory else None if names is None else names[entry.file_id]
    facts: Facts = {"path": shown(path), "type": type_of(entry), "size": entry.size, "file_id": entry.file_id}
    for kind in kinds.KINDS:
        facts |= kind.facts(reader, entry, own)
    return facts | {"data_is_sparse": entry.sparse}


def _fields(facts: Facts, human: bool) -> dict[str, str]:
    fields: Fields = {
        "path": facts["path"],
        "type": facts["type"],
        "size": amount(facts["size"]) if human else counted(facts["size"], "byte"),
        "file ID": str(facts["file_id"]),
    }
    for kind in kinds.KINDS:
        fields |= kind.text(facts)
    if facts["data_is_sparse"]:
        fields["data"] = "none stored: all zeros"
    return {name: bytes_text(value) if isinstance(value, bytes) else value for name, value in fields.items()}
