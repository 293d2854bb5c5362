"""Many images against the bound: `python -m benchmarks.fleet [--executor processes|threads|pool|dask|dask-tuned]`.

Forty images that share layers are imported into an empty store by two workers. The bound is what the distinct layers
take at the rate of plain imports, one for each core at the same time, without a scheduler, a store or a look at what is
there. The rounds take turns; the table has the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from benchmarks.compare import claim_memory
from benchmarks.inputs import DATA, add_hives, add_made_up_files
from benchmarks.layouts import Layout, StoredLayer
from cimlayer import Event, LayerDone, import_images, import_layer
from examples.layer_tar import LayerTar

MEAN_SIZE = 3200
BASES, MIDDLES = 2, 6


@dataclass(frozen=True, slots=True)
class Tar:
    path: Path
    layer: StoredLayer
    parent: int | None


def make(root: Path, images: int, files: int) -> tuple[list[str], list[Tar]]:
    """The images' locations, and the distinct layers, parents first. Bases have four times as many files."""
    layout = Layout(root / "layout")
    tars: list[Tar] = []
    layers = []

    def add(count: int, parent: int | None) -> int:
        with BytesIO() as out:
            with LayerTar(out) as layer:
                if parent is None:
                    add_hives(layer)
                add_made_up_files(layer, max(1, count // 50), 50, MEAN_SIZE, seed=len(tars))
            layers.append(layout.add_layer(out.getvalue()))
        tars.append(Tar(root / "layout" / "blobs" / layers[-1].digest.replace(":", "/"), layers[-1], parent))
        return len(tars) - 1

    bases = [add(4 * files, None) for _ in range(BASES)]
    middles = [add(files, bases[number % BASES]) for number in range(MIDDLES)]
    locations = []
    for number in range(images):
        middle = middles[number % MIDDLES]
        top = add(files, middle)
        base = tars[middle].parent
        assert base is not None
        locations.append(layout.add_image(f"image{number}", [layers[base], layers[middle], layers[top]]))
    return locations, tars


# ---- the bound ----


def plain_imports(root: Path, tars: list[Tar], worker: int, workers: int) -> float:
    """The seconds that one process takes for its part of the layers; parents that are another's part are not timed."""
    root.mkdir()
    there: set[int] = set()

    def place(number: int) -> float:
        parent = tars[number].parent
        if parent is not None and parent not in there:
            place(parent)
        begun = time.perf_counter()
        above = [] if parent is None else [root / str(parent)]
        layer = tars[number].layer
        import_layer(
            tars[number].path,
            root / str(number),
            above,
            sync=False,
            jobs=1,
            digest=layer.digest,
            diff_id=layer.diff_id,
        )
        there.add(number)
        return time.perf_counter() - begun

    return sum(place(number) for number in range(worker, len(tars), workers) if number not in there)


def bound(root: Path, tars: list[Tar], workers: int) -> float:
    """All distinct layers, spread evenly."""
    root.mkdir()
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context) as pool:
        parts = [pool.submit(plain_imports, root / str(n), tars, n, workers) for n in range(workers)]
        return sum(part.result() for part in parts) / workers


# ---- ours ----


# What docs/fleet.md recommends where dask shares its cores with the workers.
DASK_SETTINGS = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 16 << 20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 16 << 20,
}


@contextlib.contextmanager
def dask(workers: int, settings: dict[str, object] | None = None) -> Iterator[Executor]:
    import dask.config  # noqa: PLC0415
    from distributed import Client, LocalCluster  # noqa: PLC0415

    before = dict(os.environ)
    try:
        with (
            dask.config.set(settings or {}),
            LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client.get_executor(pure=False)
    finally:  # dask sets the variables of its workers here, and prefers those that are set to its settings
        os.environ.clear()
        os.environ.update(before)


EXECUTORS: dict[str, Callable[[int], contextlib.AbstractContextManager[Executor | None]]] = {
    "processes": lambda _: contextlib.nullcontext(),
    "pool": lambda workers: ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver")),
    "threads": ThreadPoolExecutor,
    "dask": dask,
    "dask-tuned": lambda workers: dask(workers, DASK_SETTINGS),
}


@dataclass(frozen=True, slots=True)
class Round:
    seconds: float
    parent: float  # processor seconds of the process that schedules
    importing: float  # of the workers' time, as a part of all of it


def import_all(store: Path, locations: list[str], workers: int, executor: Executor | None) -> Round:
    events: list[Event] = []
    begun, used = time.perf_counter(), time.process_time()
    at_once = workers if executor is None else None  # else as many as suit the executor
    for result in import_images(locations, store, executor, workers=at_once, sync=False, progress=events.append):
        assert result.error is None, result.error
    seconds = time.perf_counter() - begun
    importing = sum(event.seconds for event in events if isinstance(event, LayerDone))
    return Round(seconds, time.process_time() - used, importing / (workers * seconds))


def settle(root: Path) -> None:
    """What was written before costs nothing from now on: see README.md."""
    os.sync()
    claim_memory(root)


def main() -> None:
    parser = argparse.ArgumentParser(description="Import many images, against the bound of plain imports.")
    parser.add_argument("--executor", choices=EXECUTORS, action="append", help="repeat for more (default: all)")
    parser.add_argument("--images", type=int, default=40, metavar="N")
    parser.add_argument("--files", type=int, default=24_000, metavar="N", help="files of a layer (default: 24,000)")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--output-dir", type=Path, default=DATA, help="where to work (default: benchmarks/data)")
    options = parser.parse_args()
    workers = options.workers
    options.output_dir.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fleet-", dir=options.output_dir) as directory:
        root = Path(directory)
        locations, tars = make(root, options.images, options.files)
        size = sum(tar.path.stat().st_size for tar in tars)
        bounds: list[float] = []
        rounds: dict[str, list[Round]] = {name: [] for name in options.executor or EXECUTORS}
        turns = [None, *rounds]
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for name in turns:
                if name is None:
                    settle(root)
                    bounds.append(bound(root / "store", tars, workers))
                else:
                    with EXECUTORS[name](workers) as executor:
                        settle(root)
                        rounds[name].append(import_all(root / "store", locations, workers, executor))
                shutil.rmtree(root / "store")
            turns.append(turns.pop(0))  # none is always the first
    least = statistics.median(bounds)
    each = least * workers / len(tars)
    print(
        f"{options.images} images, {len(tars)} distinct layers, {size / 1e6:,.0f} MB compressed, {workers} workers;",
        end=" ",
    )
    print(f"bound {least:.2f} s: {each:.3f} s for a layer, {size / 1e6 / least / workers:.0f} MB/s for a worker.\n")
    print("| executor | seconds | x bound | processor seconds of the scheduler | workers importing |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, taken in rounds.items():
        seconds, parent, importing = (
            statistics.median(getattr(each, field) for each in taken) for field in ("seconds", "parent", "importing")
        )
        print(f"| {name} | {seconds:.2f} | {seconds / least:.3f} | {parent:.2f} | {importing:.1%} |")


if __name__ == "__main__":
    main()
