"""``cimlayer import``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output, amount
from cimlayer.cli.working import import_options, progress_shown, stoppable
from cimlayer.events import Event, LayerDone
from cimlayer.layer.paths import get_cim_path_from_layer
from cimlayer.layer.processing import UtilityVm
from cimlayer.limits import Limits
from cimlayer.oci.import_layer import import_layer


@click.command("import")
@click.argument("tar", metavar="TAR", type=HOST_PATH)
@click.argument("layer", metavar="LAYER", type=HOST_PATH)
@click.option(
    "parents",
    "--parent",
    metavar="DIR",
    multiple=True,
    type=HOST_PATH,
    help="A parent layer; the immediate one first.",
)
@import_options
@limit_option
def command(
    tar: str,
    layer: str,
    parents: tuple[str, ...],
    no_sync: bool,
    reproducible: bool,
    utility_vm: UtilityVm,
    no_scratch_disks: bool,
    jobs: int | None,
    limits: Limits,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a CIM layer from an OCI layer tar.

    TAR is plain or compressed with gzip or zstd; - reads standard input. LAYER is the directory to make: the image
    goes beside it, into cim-layers. Missing directories above it are made. A layer with parents needs --parent for
    each, from the immediate parent to the base. If anything fails, nothing of the layer is left.
    """
    output = Output()
    done: list[LayerDone] = []
    with stoppable() as cancel, progress_shown(output, quiet=quiet, as_json=as_json, by_layer=False) as show:

        def progress(event: Event) -> None:
            if isinstance(event, LayerDone):
                done.append(event)
            if show is not None:
                show(event)

        import_layer(
            tar,
            layer,
            parents,
            sync=not no_sync,
            reproducible=reproducible,
            utility_vm=utility_vm,
            scratch_disks=not no_scratch_disks,
            jobs=jobs,
            limits=limits,
            progress=progress,
            cancel=cancel,
        )
    result = done[0]
    if as_json:
        output.json(
            {
                "event": "import-done",
                "layer": layer,
                "image": str(get_cim_path_from_layer(layer)),
                "entries": result.entries,
                "bytes": result.bytes,
                "seconds": round(result.seconds, 3),
                "utility_vm": result.utility_vm,
            }
        )
    else:
        output.line(f"{layer}: {result.entries} entries, {amount(result.bytes)} of files, {result.seconds:.2f} s")
