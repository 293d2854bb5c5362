"""``cimlayer store``."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import click

from cimfs_ext.filetimes import time_text
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.output import Output, amount, counted
from cimlayer.cli.program import FAILED
from cimlayer.cli.stopping import stoppable
from cimlayer.formats.fileinfo import filetime_from_unix
from cimlayer.layer.store.layerstore import LayerStore

_UNITS = {"": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile("([0-9]{1,15})([KMGT]?)(iB)?", re.IGNORECASE)

_store = click.argument("store", metavar="STORE", type=HOST_PATH)
_layer = click.argument("layer", metavar="LAYER", type=HOST_PATH)
_json = click.option("as_json", "--json", is_flag=True, help="Print JSON, one object per line.")


@click.group("store")
def command() -> None:
    """List, check and clean up a store of layers.

    STORE is a directory that import-images, or import-image, has made. LAYER is the key of a layer in it, which is the
    name of its directory, or that directory. All of this may be done while imports run.
    """


def _size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size such as 50GiB, 800M or 0.")
    return int(match[1]) << _UNITS[match[2].upper()]


@command.command()
@_store
@_json
def ls(store: str, as_json: bool) -> None:
    """List the layers, the one used least recently first.

    Prints the time of the last use, the size on the disk without the parents, and the key; pinned layers are marked.
    """
    output = Output()
    for layer in LayerStore(store).layers():
        if as_json:
            output.json(
                {**asdict(layer), "path": str(layer.path.absolute()), "used": time_text(filetime_from_unix(layer.used))}
            )
            continue
        used = datetime.fromtimestamp(layer.used, timezone.utc).strftime("%Y-%m-%d %H:%M")
        output.line(f"{used}  {amount(layer.size):>10}  {layer.key}{'  pinned' if layer.pinned else ''}")


@command.command()
@_store
@click.option("--content", is_flag=True, help="Also verify every byte of every CIM.")
@_json
def check(store: str, content: bool, as_json: bool) -> None:
    """Check that every CIM can be read and has all its parents.

    Prints what is wrong; the exit code is then 1. What killed processes have left is not reported: see gc.
    """
    output = Output()
    with stoppable() as cancel:
        problems = LayerStore(store).check(content=content, cancel=cancel)
    for problem in problems:
        if as_json:
            output.json(asdict(problem))
        else:
            output.line(f"{problem.name}: {problem.reason}")
    if problems:
        click.get_current_context().exit(FAILED)


@command.command()
@_store
@click.option("--keep", metavar="SIZE", callback=_size, help="Remove layers until all fit in this, such as 50GiB.")
@click.option("--dry-run", is_flag=True, help="Remove nothing, print what would be removed.")
@_json
def gc(store: str, keep: int | None, dry_run: bool, as_json: bool) -> None:
    """Remove what killed processes have left and, with --keep, layers.

    Layers used least recently go first. Layers that are pinned, that others are built on, or that an import is building
    on, stay.
    """
    garbage = LayerStore(store).collect_garbage(keep, dry_run=dry_run)
    output = Output()
    if as_json:
        output.json({**asdict(garbage), "dry_run": dry_run})
        return
    for name in garbage.remains:
        output.line(f"{name}  left behind")
    for key in garbage.layers:
        output.line(key)
    verdict = "would be removed" if dry_run else "removed"
    layers, remains = counted(len(garbage.layers), "layer"), counted(len(garbage.remains), "file")
    output.line(f"{layers} and {remains} left behind, {amount(garbage.bytes)}, {verdict}")


@command.command()
@_store
@_layer
def pin(store: str, layer: str) -> None:
    """Keep gc from removing a layer and its parents."""
    LayerStore(store).pin(Path(layer).name)


@command.command()
@_store
@_layer
def unpin(store: str, layer: str) -> None:
    """Let gc remove a layer again."""
    LayerStore(store).unpin(Path(layer).name)
