"""Many container images into one store."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor

from cimfs_ext.cpus import available_cpus
from cimlayer.events import CancellationToken, ProgressCallback
from cimlayer.layer.processing import UtilityVm
from cimlayer.layer.store.claims import random_name
from cimlayer.layer.store.keys import ByteOptions
from cimlayer.layer.store.layerstore import LayerStore
from cimlayer.limits import DEFAULT_LIMITS, Limits
from cimlayer.oci.fleet.driving import WallClock, drive
from cimlayer.oci.fleet.jobs import Run, Source
from cimlayer.oci.fleet.pool import WorkerProcesses
from cimlayer.oci.fleet.scheduler import ImageResult, Scheduler
from cimlayer.oci.locations import absolute_location
from cimlayer.oci.platforms import Platform

_TOUCHED = 60.0  # seconds between signs that a run goes on


def import_images(
    sources: Iterable[Source],
    store: str | os.PathLike[str] | LayerStore,
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    platform: str | Platform | None = None,
    os_version: str | None = None,
    sync: bool = True,
    reproducible: bool = False,
    utility_vm: UtilityVm = "auto",
    scratch_disks: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    progress: ProgressCallback | None = None,
    cancel: CancellationToken | None = None,
) -> Iterator[ImageResult]:
    """Import container images into a store, each layer once; yields an :class:`~cimlayer.ImageResult` as each is over.

    ``sources`` are those of :func:`~cimlayer.import_image`, without standard input; or calls that get a
    :class:`~cimlayer.CancellationToken` and return a context manager of one, such as
    ``functools.partial(open_mine, "name")``. Paths and the store must be the same for all workers; an object must
    survive pickle if workers are other processes, and take calls of several threads if they are threads.

    ``executor`` is any :class:`concurrent.futures.Executor`: threads, processes, dask's ``Client.get_executor()``,
    those of ray and mpi4py. The default is ``workers`` processes of our own (one per CPU), of which each may die; they
    import the program's main module, as those of :mod:`multiprocessing` do. With another executor, ``workers`` is how
    many layers are given to it at once: by default those that it can do, where it says so, otherwise all that can be
    done. Each layer takes one thread.

    A layer is given to the executor when its parent is there, the one with the most above it first. Where an image
    fails in a layer that others have too, it is taken from one of them, so that each image fails alone. Failures that
    may be otherwise the next time (of the network, a lost worker) are tried again, four times in all. Once the iterator
    is closed, or ``cancel`` is cancelled (OperationCancelledError), workers stop within seconds; nothing half made
    remains, and what is there is used the next time. If the executor itself fails (BrokenProcessPool), so do the
    images that are left.

    ``progress`` is called in the thread that iterates, with the events of layers as for import_image, but without
    LayerProgress; ``sync``, ``reproducible``, ``utility_vm``, ``scratch_disks`` and ``limits`` are as for
    import_image. Raises what is wrong with the arguments or with the store; what is wrong with an image is its result's
    ``error``.
    """
    if isinstance(sources, (str, os.PathLike)):
        raise TypeError("sources is a sequence of sources, not one source")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    store = store if isinstance(store, LayerStore) else LayerStore(store)
    run = Run(
        store,
        random_name(),
        Platform.wanted(platform, os_version),
        ByteOptions(reproducible, utility_vm, scratch_disks),
        sync,
        limits,
    )
    scheduler = Scheduler(run)
    for number, source in enumerate(sources):
        location = absolute_location(source) if isinstance(source, (str, os.PathLike)) else source
        scheduler.add(number, location, source)
    return _run(scheduler, run, executor, workers, progress, CancellationToken(cancel))


def _run(
    scheduler: Scheduler,
    run: Run,
    executor: Executor | None,
    workers: int | None,
    progress: ProgressCallback | None,
    cancel: CancellationToken,
) -> Iterator[ImageResult]:
    run.store.layout.make()
    file = run.store.layout.runs / run.name
    with contextlib.ExitStack() as stack:
        if executor is None:
            workers = workers or available_cpus()
            executor = stack.enter_context(WorkerProcesses(workers))
        at_once = workers or _capacity(executor)
        file.touch()
        stack.callback(file.unlink, missing_ok=True)
        last = time.monotonic()

        def alive() -> None:
            nonlocal last
            if time.monotonic() - last > _TOUCHED:
                last = time.monotonic()
                file.touch()

        yield from drive(
            scheduler,
            executor,
            at_once,
            clock=WallClock(),
            progress=progress,
            cancel=cancel,
            stop=lambda: file.unlink(missing_ok=True),
            alive=alive,
        )


def _capacity(executor: Executor) -> int | None:
    """How many calls to give to an executor: what it can do, and a few that wait; None if it does not say."""
    for name in ("_max_workers", "num_workers"):  # of the standard library's and loky's, of mpi4py's
        count = getattr(executor, name, None)
        if isinstance(count, int) and count > 0:
            return count + 1 + count // 8
    return None
