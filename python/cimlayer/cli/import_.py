"""``cimlayer import``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cimlayer.cli.eventprogress import progress_shown
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.importing import import_options
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output, amount, counted
from cimlayer.cli.stopping import stoppable
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
    help="The immediate parent layer; its parents may follow, down to the base. Repeatable.",
)
@click.option("--digest", metavar="DIGEST", help="Expected digest of TAR as it is: sha256:HEX or sha512:HEX.")
@click.option("--diff-id", metavar="DIGEST", help="Expected digest of the uncompressed tar.")
@import_options
@limit_option
def command(
    tar: str,
    layer: str,
    parents: tuple[str, ...],
    digest: str | None,
    diff_id: str | None,
    no_sync: bool,
    reproducible: bool,
    utility_vm: UtilityVm,
    no_scratch_disks: bool,
    jobs: int | None,
    lock_timeout: float,
    limits: Limits,
    as_json: bool,
) -> None:
    """Import an OCI layer tar as a CIM layer.

    TAR may be plain or compressed with gzip or zstd; - reads standard input. LAYER is the directory to create; the
    CIM goes into the cim-layers directory beside it. Missing parent directories are created. If the import
    fails, nothing of the layer remains.
    """
    output = Output()
    done: list[LayerDone] = []
    path = Path(os.path.abspath(layer))
    shown = progress_shown(output, path.parent, as_json=as_json, by_layer=False)
    with stoppable() as cancel, shown as show:

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
            digest=digest,
            diff_id=diff_id,
            limits=limits,
            lock_timeout=lock_timeout,
            progress=progress,
            cancel=cancel,
        )
    result = done[0]
    with output.after(f"{layer} was imported"):
        if as_json:
            output.json(
                {
                    "event": "import-done",
                    "layer": str(path),
                    "image": str(get_cim_path_from_layer(layer)),
                    "entries": result.entries,
                    "bytes": result.bytes,
                    "seconds": round(result.seconds, 3),
                    "utility_vm": result.utility_vm,
                }
            )
        else:
            entries = counted(result.entries, "entry", "entries")
            output.line(f"{layer}: {entries}, {amount(result.bytes)} of files, {result.seconds:.2f} s")
