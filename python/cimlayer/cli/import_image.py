"""``cimlayer import-image``."""

from __future__ import annotations

from dataclasses import asdict

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output
from cimlayer.cli.working import import_options, progress_shown, stoppable
from cimlayer.layer.processing import UtilityVm
from cimlayer.limits import Limits
from cimlayer.oci.import_image import ImportedImage, import_image


@click.command("import-image")
@click.argument("source", metavar="SOURCE", type=HOST_PATH)
@click.argument("directory", metavar="DIR", type=HOST_PATH)
@click.option("--platform", metavar="OS/ARCH/VERSION", help="Which image, such as windows/amd64/10.0.20348.")
@import_options
@limit_option
def command(
    source: str,
    directory: str,
    platform: str | None,
    no_sync: bool,
    reproducible: bool,
    utility_vm: UtilityVm,
    no_scratch_disks: bool,
    jobs: int | None,
    limits: Limits,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make CIM layers from all layers of a container image.

    SOURCE is an OCI image layout, a docker-save archive or a folder of skopeo copy: a folder, or a tar that is not
    compressed. DIR gets a layer directory for each layer, named by its chain ID; layers that are there already are
    used again. Every digest is verified. The directory of the top layer is printed.

    If anything fails, the layers below stay, nothing of the layer that failed is left, and calling it again goes on
    from there.
    """
    output = Output()
    with stoppable() as cancel, progress_shown(output, quiet=quiet, as_json=as_json, by_layer=True) as progress:
        image = import_image(
            source,
            directory,
            platform=platform,
            sync=not no_sync,
            reproducible=reproducible,
            utility_vm=utility_vm,
            scratch_disks=not no_scratch_disks,
            jobs=jobs,
            limits=limits,
            progress=progress,
            cancel=cancel,
        )
    if as_json:
        output.json(_summary(image))
    else:
        output.line(str(image.top))


def _summary(image: ImportedImage) -> dict[str, object]:
    layers = [{**asdict(layer), "path": str(layer.path), "seconds": round(layer.seconds, 3)} for layer in image.layers]
    return {"event": "image-done", **asdict(image), "top": str(image.top), "layers": layers}
