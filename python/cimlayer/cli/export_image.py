"""``cimlayer export-image``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cimlayer.cli.eventprogress import files_progress
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import require_layer
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output
from cimlayer.cli.registries import registry_options
from cimlayer.cli.registrychoice import RegistryOptions
from cimlayer.cli.stopping import stoppable
from cimlayer.errors import FormatError
from cimlayer.limits import Limits
from cimlayer.oci.export_image import ExportedImage, export_image
from cimlayer.oci.targets import Compression


@click.command("export-image")
@click.argument("layer", metavar="LAYER", type=HOST_PATH)
@click.argument("destination", metavar="DEST", type=HOST_PATH)
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=HOST_PATH,
    help="JSON object of Entrypoint, Cmd, Env, User, Labels, ...",
)
@click.option(
    "--os-version",
    metavar="VERSION",
    help="Windows version of the image (default: as imported, or that of the SOFTWARE hive).",
)
@click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd", "none"]),
    help="Compression of the layers (default: gzip; none in a docker archive).",
)
@registry_options
@click.option("as_json", "--json", is_flag=True, help="Print the result as a JSON object.")
@limit_option
def command(
    layer: str,
    destination: str,
    config_file: str | None,
    os_version: str | None,
    compression: Compression | None,
    registry: RegistryOptions,
    as_json: bool,
    limits: Limits,
) -> None:
    """Export a CIM layer and all below it as a container image.

    DEST is docker://HOST[:PORT]/NAME[:TAG], oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:NAME:TAG] or
    dir:DIR. Each layer is what cimlayer export writes, compressed. A container registry gets only the layers that it
    does not have. Prints the digest of the image.
    """
    require_layer(layer)
    output = Output()
    with (
        stoppable() as cancel,
        files_progress("exporting") as progress,
        registry.target(destination, cancel) as target,
    ):
        image = export_image(
            layer,
            target,
            config=None if config_file is None else _read_config(config_file),
            os_version=os_version,
            compression=compression,
            limits=limits,
            progress=progress,
            cancel=cancel,
        )
    if as_json:
        with output.after(f"{destination} was written"):
            output.json(_summary(image))
        return
    for each in image.layers:
        if each.original not in (None, each.digest):
            click.echo(f"layer {each.path.name[:12]}: new blob {each.digest} (imported from {each.original})", err=True)
    if image.platform.count("/") < 2:
        click.echo("the version of Windows is not known: the image has no os.version (--os-version)", err=True)
    with output.after(f"{destination} was written"):
        output.line(image.digest)


def _summary(image: ExportedImage) -> dict[str, object]:
    return {**asdict(image), "layers": [{**asdict(layer), "path": str(layer.path)} for layer in image.layers]}


def _read_config(path: str) -> dict[str, Any]:
    try:
        config = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}", path) from error
    if not isinstance(config, dict):
        raise FormatError("not a JSON object", path)
    return config
