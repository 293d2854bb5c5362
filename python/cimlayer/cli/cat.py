"""``cimlayer cat``."""

from __future__ import annotations

import sys

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image

_PIECE = 1 << 20


@click.command("cat")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("path", metavar="PATH")
@click.option("--stream", metavar="NAME", help="Read an alternate data stream, such as Zone.Identifier.")
def command(image: str, path: str, stream: str | None) -> None:
    """Write a file's content to standard output.

    The bytes are written unchanged. Links are not followed; their content is empty.
    """
    output = sys.stdout.buffer
    piece = memoryview(bytearray(_PIECE))
    with open_image(image) as reader, reader.open(path, stream=stream) as content:
        while count := content.readinto(piece):
            output.write(piece[:count])
    output.flush()
