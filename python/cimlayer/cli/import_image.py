"""``cimlayer import-image``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from cimlayer.cli.eventprogress import progress_shown
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.importing import import_options
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output
from cimlayer.cli.registries import registry_options
from cimlayer.cli.registrychoice import RegistryOptions
from cimlayer.cli.stopping import stoppable
from cimlayer.layer.processing import UtilityVm
from cimlayer.limits import Limits
from cimlayer.oci.import_image import import_image
from cimlayer.oci.imported import ImportedImage


@click.command("import-image")
@click.argument("source", metavar="SOURCE", type=HOST_PATH)
@click.argument("directory", metavar="DIR", type=HOST_PATH)
@click.option("--platform", metavar="OS/ARCH/VERSION", help="Platform to import, such as windows/amd64/10.0.20348.")
@click.option("--os-version", metavar="VERSION", help="Windows build to import, such as 10.0.20348.")
@registry_options
@import_options
@limit_option
def command(
    source: str,
    directory: str,
    platform: str | None,
    os_version: str | None,
    no_sync: bool,
    reproducible: bool,
    utility_vm: UtilityVm,
    no_scratch_disks: bool,
    jobs: int | None,
    lock_timeout: float,
    limits: Limits,
    registry: RegistryOptions,
    as_json: bool,
) -> None:
    """Import all layers of a container image.

    SOURCE is an OCI image layout, a docker archive or a folder made by skopeo copy: the path of a folder, or of a tar,
    which may be compressed; - reads standard input. In skopeo's notation, oci:DIR[:REF], oci-archive:FILE[:REF],
    docker-archive:FILE[:REF] and dir:DIR, REF selects one of several container images: a name, @N for the entry of
    that number, or a digest; cimlayer images lists them. Without it, an image for Windows is selected.
    docker://HOST[:PORT]/NAME[:TAG][@DIGEST] is in a container registry.

    In DIR, each layer becomes a layer directory named by its chain ID; existing layers are reused. All digests are
    verified. Prints the directory of the top layer.

    If a layer fails, nothing of it remains; the layers below it are kept, and running the command again continues
    from there.
    """
    output = Output()
    with (
        stoppable() as cancel,
        progress_shown(output, Path(os.path.abspath(directory)), as_json=as_json, by_layer=True) as progress,
        registry.source(source, cancel) as images,
    ):
        image = import_image(
            images,
            directory,
            platform=platform,
            os_version=os_version,
            sync=not no_sync,
            reproducible=reproducible,
            utility_vm=utility_vm,
            scratch_disks=not no_scratch_disks,
            jobs=jobs,
            limits=limits,
            lock_timeout=lock_timeout,
            progress=progress,
            cancel=cancel,
        )
    with output.after(f"{image.top} was imported"):
        if as_json:
            output.json(image_summary(image))
        else:
            output.line(str(image.top))


def image_summary(image: ImportedImage) -> dict[str, object]:
    """A container image that was imported, as a JSON object."""
    layers = [{**asdict(layer), "path": str(layer.path), "seconds": round(layer.seconds, 3)} for layer in image.layers]
    return {"event": "image-done", **asdict(image), "top": str(image.top), "layers": layers}
