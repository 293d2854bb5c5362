"""``cimlayer cat``."""

from __future__ import annotations

import sys

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.innerpaths import INNER_PATH
from cimlayer.image.patterns import has_wildcards
from cimlayer.image.selection import each_named

_PIECE = 1 << 20


@click.command("cat")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=INNER_PATH)
@click.option("--stream", metavar="NAME", help="Read an alternate data stream, such as Zone.Identifier.")
def command(image: str, paths: tuple[str, ...], stream: str | None) -> None:
    """Write the content of files to standard output.

    PATH is a path or a pattern; directories that a pattern matches are left out. The bytes are written unchanged.
    Links are not followed; their content is empty.
    """
    output = sys.stdout.buffer
    piece = memoryview(bytearray(_PIECE))
    with open_image(image) as reader:
        for path in paths:
            for found, entry in list(each_named(reader, [path])) if has_wildcards(path) else [(path, None)]:
                if entry is not None and entry.is_directory:
                    continue
                with reader.open(found, stream=stream) as content:
                    while count := content.readinto(piece):
                        output.write(piece[:count])
    output.flush()
