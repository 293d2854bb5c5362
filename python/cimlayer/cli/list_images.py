"""``cimlayer images``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.output import Output
from cimlayer.cli.registries import registry_options
from cimlayer.cli.registrychoice import RegistryOptions
from cimlayer.cli.stopping import stoppable
from cimlayer.oci.list_images import ListedImage, list_images


@click.command("images")
@click.argument("source", metavar="SOURCE", type=HOST_PATH)
@registry_options
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per line.")
def command(source: str, registry: RegistryOptions, as_json: bool) -> None:
    """List the container images in a source.

    Prints platform, version, reference and digest, one line each. SOURCE is as for import-image, which takes the
    reference after a colon, as in oci:DIR:REF. Attestations and other artifacts are left out; images that an index
    names but the source does not contain are marked.
    """
    output = Output()
    with stoppable() as cancel, registry.source(source, cancel) as opened:
        images = list_images(opened, cancel=cancel)
    if as_json:
        for image in images:
            output.json(_record(image))
        return
    rows = [_row(image) for image in images]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        output.line("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _row(image: ListedImage) -> tuple[str, ...]:
    platform = image.platform
    name = "/".join(filter(None, (platform.os, platform.architecture)))
    problem = "" if image.problem is None else f"({image.problem})"
    return name, platform.os_version or "-", image.references[0], image.digest or "-", problem


def _record(image: ListedImage) -> dict[str, object]:
    return {
        "os": image.platform.os,
        "architecture": image.platform.architecture,
        "os_version": image.platform.os_version,
        "references": list(image.references),
        "digest": image.digest,
        "problem": image.problem,
    }
