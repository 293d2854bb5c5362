"""``cimlayer stat``."""

from __future__ import annotations

import click

from cimfs_ext.reader import ImageReader
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.output import Output, bytes_text, counted, type_of
from cimlayer.image import kinds
from cimlayer.image.entrynames import shown
from cimlayer.image.kinds import Facts, Fields


@click.command("stat")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("path", metavar="PATH")
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object, with FILETIMEs, and buffers in base64.")
def command(image: str, path: str, as_json: bool) -> None:
    """Show all metadata of a file.

    Times are in UTC with all decimals, the security descriptor is in SDDL. All names of a file with hard links are
    listed. The path / is the root directory.
    """
    output = Output()
    with open_image(image) as reader:
        facts = _facts(reader, path)
    if as_json:
        output.json(facts)
    else:
        output.fields(_fields(facts))


def _facts(reader: ImageReader, path: str) -> Facts:
    entry = reader.stat(path)
    facts: Facts = {"path": shown(path), "type": type_of(entry), "size": entry.size, "file_id": entry.file_id}
    for kind in kinds.KINDS:
        facts |= kind.facts(reader, path, entry)
    return facts | {"data_is_sparse": entry.sparse}


def _fields(facts: Facts) -> dict[str, str]:
    fields: Fields = {
        "path": facts["path"],
        "type": facts["type"],
        "size": counted(facts["size"], "byte"),
        "file ID": str(facts["file_id"]),
    }
    for kind in kinds.KINDS:
        fields |= kind.text(facts)
    if facts["data_is_sparse"]:
        fields["data"] = "none stored: all zeros"
    return {name: bytes_text(value) if isinstance(value, bytes) else value for name, value in fields.items()}
