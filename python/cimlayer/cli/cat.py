"""``cimlayer cat``."""

from __future__ import annotations

import sys

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image

_PIECE = 1 << 20


@click.command("cat")
@click.argument("image", metavar="IMAGE", type=HOST_PATH)
@click.argument("path", metavar="PATH")
@click.option("--stream", metavar="NAME", help="An alternate stream, such as Zone.Identifier.")
def command(image: str, path: str, stream: str | None) -> None:
    """Write the content of a file to standard output.

    The bytes are those of the file, unchanged. Links are not followed: their content is empty.
    """
    output = sys.stdout.buffer
    piece = memoryview(bytearray(_PIECE))
    with open_image(image) as reader, reader.open(path, stream) as content:
        while count := content.readinto(piece):
            output.write(piece[:count])
    output.flush()
