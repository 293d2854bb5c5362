"""``cimlayer import``."""

from __future__ import annotations

import time

import click

from cimlayer.cli.output import Output, amount
from cimlayer.importing import ImportProgress, import_layer
from cimlayer.paths import get_cim_path_from_layer


@click.command("import")
@click.argument("tar", metavar="TAR")
@click.argument("layer", metavar="LAYER")
@click.option("parents", "--parent", metavar="DIR", multiple=True, help="A parent layer; the immediate one first.")
@click.option("--no-sync", is_flag=True, help="Do not wait until the layer is on the disk.")
@click.option("--reproducible", is_flag=True, help="The same layer gives the same bytes, as of SOURCE_DATE_EPOCH.")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Threads; as many as CPUs if not given.")
@click.option("as_json", "--json", is_flag=True, help="The summary as one JSON object.")
def command(
    tar: str,
    layer: str,
    parents: tuple[str, ...],
    no_sync: bool,
    reproducible: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Make a CIM layer from an OCI layer tar.

    TAR is plain or compressed with gzip or zstd; - reads standard input. LAYER is the directory to make: the image
    goes beside it, into cim-layers. Missing directories above it are made. A layer with parents needs --parent for
    each, from the immediate parent to the base. If anything fails, nothing of the layer is left.
    """
    output = Output()
    reached = ImportProgress(0, 0, 0)

    def remember(progress: ImportProgress) -> None:
        nonlocal reached
        reached = progress

    start = time.monotonic()
    size = import_layer(tar, layer, parents, sync=not no_sync, reproducible=reproducible, jobs=jobs, progress=remember)
    seconds = time.monotonic() - start
    if as_json:
        output.json(
            {
                "layer": layer,
                "image": str(get_cim_path_from_layer(layer)),
                "entries": reached.entries,
                "bytes": size,
                "seconds": round(seconds, 3),
            }
        )
    else:
        output.line(f"{layer}: {reached.entries} entries, {amount(size)} of files, {seconds:.2f} s")
