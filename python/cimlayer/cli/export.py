"""``cimlayer export``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cimlayer.cli.eventprogress import files_progress
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import require_layer
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.stopping import stoppable
from cimlayer.image.export import export_image_as_tar
from cimlayer.limits import Limits
from cimlayer.oci.export_layer import export_layer


@click.command("export")
@click.argument("layer", metavar="LAYER|CIM", type=HOST_PATH)
@click.option(
    "parents",
    "--parent",
    metavar="DIR",
    multiple=True,
    type=HOST_PATH,
    help="The immediate parent layer, if it cannot be found by itself.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="-",
    type=HOST_PATH,
    help="The tar to create (default: -, standard output).",
)
@limit_option
def command(layer: str, parents: tuple[str, ...], output: str, limits: Limits) -> None:
    """Export a CIM layer as an OCI layer tar, or a CIM as a plain tar.

    The tar of LAYER contains what the layer changes relative to its parent: removed files as whiteouts, metadata in
    PAX records as Microsoft's tools write them. Importing it on the same parents gives the same tree. It is not
    compressed, so its SHA-256 is the layer's diff ID. The tar of a .cim file contains everything in the CIM;
    `cimlayer create` makes an equal CIM from it.
    """
    plain = Path(layer).is_file()
    if plain and parents:
        raise click.UsageError("--parent is for a layer: the tar of a .cim file contains everything in the CIM.")
    if not plain:
        require_layer(layer)
    stream = sys.stdout.buffer
    if output == "-" and stream.isatty():
        raise click.UsageError("Refusing to write a tar to a terminal: use -o FILE or redirect the output.")
    target = stream if output == "-" else output
    with stoppable() as cancel, files_progress("exporting") as progress:
        if plain:
            export_image_as_tar(layer, target, limits=limits, progress=progress, cancel=cancel)
        else:
            export_layer(layer, parents, target, limits=limits, progress=progress, cancel=cancel)
    stream.flush()
