"""``cimlayer import-images``."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cimlayer.cli.failures import explain, facts
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.importing import fleet_options
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import QUIET, Output, amount, counted, escaped, of_call
from cimlayer.cli.program import FAILED
from cimlayer.cli.progress import progress_of
from cimlayer.cli.registries import registry_options
from cimlayer.cli.registrychoice import PREFIX, RegistryOptions
from cimlayer.cli.stopping import stoppable
from cimlayer.events import Event, LayerDone, LayerReused, LayerStarted, LayerWarning, ProgressCallback, event_record
from cimlayer.limits import Limits
from cimlayer.oci.fleet import forkserver

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from cimlayer.cli.bar import Bar
    from cimlayer.layer.processing import UtilityVm
    from cimlayer.oci.fleet.scheduler import ImageResult

_SHOWN_DIGITS = 12


@click.command("import-images")
@click.argument("list_", metavar="LIST", type=HOST_PATH)
@click.argument("store", metavar="STORE", type=HOST_PATH)
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Number of processes (default: one per CPU).")
@click.option("--dask", metavar="ADDRESS", help="Import with the workers of a dask cluster, such as tcp://HOST:8786.")
@click.option("--platform", metavar="OS/ARCH/VERSION", help="Platform to import, such as windows/amd64/10.0.20348.")
@click.option("--os-version", metavar="VERSION", help="Windows build to import, such as 10.0.20348.")
@registry_options
@fleet_options
@limit_option
def command(
    list_: str,
    store: str,
    jobs: int | None,
    dask: str | None,
    platform: str | None,
    os_version: str | None,
    no_sync: bool,
    reproducible: bool,
    utility_vm: UtilityVm,
    no_scratch_disks: bool,
    limits: Limits,
    registry: RegistryOptions,
    as_json: bool,
) -> None:
    """Import many container images into one store.

    Each layer is imported once, whatever images share it.

    LIST is a file with one SOURCE of import-image per line, or - for standard input; empty lines and those that begin
    with # are ignored. STORE is a directory of layers, which may be shared with other machines and with other imports
    at the same time. Prints the directory of the top layer and the source of each image when it is complete.

    An image that fails does not stop the others; the exit code is then 1. Running the command again imports what is
    missing.
    """
    if dask is not None and jobs is not None:
        raise click.UsageError("--jobs is for this machine; a dask cluster has its own workers.")
    lines = _read(list_)
    output = Output()
    failed = 0
    with (
        stoppable() as cancel,
        _executor(dask) as executor,
        contextlib.nullcontext() if as_json else progress_of("importing", at_once=True) as bar,
    ):
        from cimlayer.oci.fleet.import_images import import_images  # noqa: PLC0415  while workers load as much

        results = import_images(
            [_source(location, registry) for _, location in lines],
            store,
            executor,
            workers=jobs,
            platform=platform,
            os_version=os_version,
            sync=not no_sync,
            reproducible=reproducible,
            utility_vm=utility_vm,
            scratch_disks=not no_scratch_disks,
            limits=limits,
            progress=_records(output, Path(os.path.abspath(store))) if as_json else _lines(bar),
            cancel=cancel,
        )
        with contextlib.closing(results):  # type: ignore[type-var]  # a generator
            for result in results:
                failed += result.image is None
                if bar is not None:
                    bar.hide()
                _show(output, list_, *lines[result.number], result, as_json=as_json)
                if bar is not None:
                    bar.refresh()
    if failed:
        if not as_json:
            click.echo(f"cimlayer: {failed} of {len(lines)} images failed", err=True)
        click.get_current_context().exit(FAILED)


def _read(list_: str) -> list[tuple[int, str]]:
    """The sources, with the numbers of their lines."""
    text = sys.stdin.read() if list_ == "-" else Path(list_).read_text("utf-8")
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _source(location: str, registry: RegistryOptions) -> Any:
    return functools.partial(registry.source, location) if location.startswith(PREFIX) else location


@contextlib.contextmanager
def _executor(dask: str | None) -> Iterator[Executor | None]:
    """The workers of a dask cluster, or none."""
    if dask is None:
        forkserver.start()
        yield None
        gc.collect()  # the processes' semaphores, which are reported if they are left to the end of the program
        return
    try:
        from distributed import Client  # noqa: PLC0415
    except ImportError as error:
        raise OSError(errno.ENOSYS, "dask clusters need dask: pip install 'cimlayer[dask]'") from error
    with Client(dask) as client:  # type: ignore[no-untyped-call]
        yield client.get_executor(pure=False)


def _records(output: Output, store: Path) -> ProgressCallback:
    """One JSON line per event."""

    def record(event: Event) -> None:
        fields = event_record(event)
        output.json(fields | {"layer": str(store / fields["layer"])})
        sys.stdout.flush()

    return record


def _lines(bar: Bar | None) -> ProgressCallback | None:
    """One line per layer, since many are imported at the same time, and a bar for all of them on a terminal."""
    names: dict[str, str] = {}
    running: set[str] = set()
    layers = size = 0

    def line(text: str) -> None:
        if bar is not None:
            bar.hide()
        click.echo(escaped(text), err=True)

    def show(event: Event) -> None:
        nonlocal layers, size
        if isinstance(event, LayerStarted):
            names[event.layer] = (event.digest or event.layer).partition(":")[2][:_SHOWN_DIGITS]
            running.add(event.layer)
        elif isinstance(event, (LayerDone, LayerReused, LayerWarning)):
            running.discard(event.layer)
        if isinstance(event, LayerDone):
            layers, size = layers + 1, size + event.bytes
            line(f"layer {names.get(event.layer)}: {amount(event.bytes)} of files in {event.seconds:.1f} s")
        elif isinstance(event, LayerWarning):
            line(f"layer {names.get(event.layer)}: {event.text}")
        if bar is not None:
            bar.show(size)
            bar.note(f"{counted(layers, 'layer')} done, {len(running)} being imported")

    return None if of_call(QUIET) else show


def _show(output: Output, list_: str, line: int, location: str, result: ImageResult, *, as_json: bool) -> None:
    where = {"source": location, "line": line}
    if result.image is not None and as_json:
        from cimlayer.cli.import_image import image_summary  # noqa: PLC0415

        output.json({**image_summary(result.image), **where})
    elif result.image is not None:
        output.line(f"{result.image.top}  {location}")
    elif result.error is not None and as_json:
        output.json({"event": "image-failed", **where, **facts(result.error)})
    elif result.error is not None:
        text = explain(result.error)
        about = "" if location in text else f"{location}: "
        click.echo(f"cimlayer: {escaped(f'{list_}:{line}: {about}{text}')}", err=True)
    sys.stdout.flush()
