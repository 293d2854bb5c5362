"""10,000 container images on 1,000 workers, in virtual time: `python -m benchmarks.fleet_simulation`.

The scheduler and what drives it are those of `import_images`; only the executor and the clock are made up here. What a
job takes follows from COSTS. `--plot FILE` draws what docs/fleet.md shows.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cimlayer.blobs.digests import Digest, chain_ids
from cimlayer.events import CancellationToken
from cimlayer.layer.store.keys import ByteOptions
from cimlayer.layer.store.layerstore import LayerStore
from cimlayer.limits import DEFAULT_LIMITS
from cimlayer.oci.fleet.driving import Arrival, Call, drive
from cimlayer.oci.fleet.jobs import LOOKING_UP, LayerJob, Made, Outcome, Resolved, ResolveJob, Run
from cimlayer.oci.fleet.scheduler import Scheduler, Task
from cimlayer.oci.imported import ImportedLayer
from cimlayer.oci.planned import PlannedLayer
from cimlayer.oci.platforms import WINDOWS
from cimlayer.oci.selection import Layer
from cimlayer.oci.sources import BlobDescriptor

MB, GB, TB = 10**6, 10**9, 10**12
STORE = Path("/store")


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one worker, which is one core.

    `rate`, `layer` and `expansion` are measured with layers of small files, as `benchmarks.fleet` makes them: processor
    time, with all digests verified. `resolve` is two requests to a container registry. A worker's life is as short as
    that of machines that may be taken away at any time.
    """

    rate: float = 68 * MB  # compressed bytes per second
    layer: float = 0.04  # seconds for each layer, however small
    resolve: float = 0.3
    expansion: float = 2.5  # bytes in the store for each compressed one
    life: float = 6 * 3600.0  # seconds until a worker dies, on the average
    restart: float = 30.0


COSTS = Costs()


# ---- images that share layers as Windows images do ----


@dataclass(slots=True)
class Images:
    """Chains of layers, by their sizes; a layer is named by a number."""

    chance: random.Random
    sizes: list[int] = field(default_factory=list)
    chains: list[tuple[int, ...]] = field(default_factory=list)
    _planned: dict[int, tuple[PlannedLayer, ...]] = field(default_factory=dict)

    def layer(self, size: float) -> int:
        self.sizes.append(max(int(size), 1000))
        return len(self.sizes) - 1

    def of_size(self, median: float, spread: float) -> int:
        return self.layer(median * math.exp(self.chance.gauss(0, spread)))

    def popular(self, things: list[tuple[int, ...]]) -> tuple[int, ...]:
        """One of them; the first is asked for most (Zipf)."""
        return self.chance.choices(things, [1 / rank for rank in range(1, len(things) + 1)])[0]

    def planned(self, number: int) -> tuple[PlannedLayer, ...]:
        """The layers of an image."""
        if number not in self._planned:
            chain = self.chains[number]
            digests = [Digest("sha256", f"{layer:064x}") for layer in chain]
            layers = [
                Layer(BlobDescriptor(str(digest), self.sizes[layer]), digest)
                for layer, digest in zip(chain, digests, strict=True)
            ]
            self._planned[number] = tuple(
                PlannedLayer(layer, id_, STORE / id_.hex, {})
                for layer, id_ in zip(layers, chain_ids(digests), strict=True)
            )
        return self._planned[number]


def make_images(count: int, seed: int) -> Images:
    """Nano Server, Server Core and Server in three releases with monthly updates; 60 frameworks on them; applications.

    Of an application there are versions, which share the layers below the last one or two. Sizes are those of the
    images that Microsoft publishes, and log-normal for applications.
    """
    images = Images(random.Random(seed))
    bases = []
    for _release in range(3):
        core, nano, server = (images.layer(size) for size in (1450 * MB, 110 * MB, 2600 * MB))
        for month in range(8):
            updates = [images.layer(size * (1 + 0.05 * month)) for size in (350 * MB, 8 * MB, 450 * MB)]
            bases += [(core, updates[0]), (nano, updates[1]), (server, updates[2])]
    bases.sort(key=lambda chain: (chain[1] % 24) // 3)
    frameworks = [
        (*images.popular(bases), *(images.of_size(60 * MB, 1) for _ in range(images.chance.randint(1, 4))))
        for _ in range(60)
    ]
    while len(images.chains) < count:
        below = images.popular(frameworks if images.chance.random() < 0.8 else bases)
        application = (*below, *(images.of_size(15 * MB, 1.3) for _ in range(images.chance.randint(1, 4))))
        for _ in range(images.chance.randint(1, 12)):  # versions
            last = (images.of_size(10 * MB, 1.3) for _ in range(images.chance.randint(1, 2)))
            images.chains.append((*application, *last))
    del images.chains[count:]
    images.chance.shuffle(images.chains)
    return images


# ---- an executor in virtual time ----


class Cluster(Executor):
    """Workers that do what they are given, first come first served; also the clock."""

    def __init__(self, images: Images, workers: int, costs: Costs, seed: int) -> None:
        self._images, self._costs = images, costs
        self._chance = random.Random(seed)
        self._time = 0.0
        self._idle = [(0.0, number) for number in range(workers)]  # when each is free
        self._dies = [self._life() for _ in range(workers)]
        self._busy: list[tuple[float, int, Call, list[Outcome] | None, int]] = []
        self._queued: list[tuple[Call, LayerJob | list[ResolveJob]]] = []
        self._tasks: dict[Call, Sequence[Task]] = {}
        self._count = itertools.count()
        self._made: dict[str, ImportedLayer] = {}
        self.work = 0.0  # seconds that workers were busy
        self.downloaded = 0
        self.deaths = 0
        self.busy_at: list[tuple[float, int]] = []
        self.done_at: list[float] = []

    def _life(self) -> float:
        return self._chance.expovariate(1 / self._costs.life)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Call = Future()
        self._queued.append((future, args[0]))
        return future

    # ---- the clock ----

    def now(self) -> float:
        return self._time

    def watch(self, future: Call, tasks: Sequence[Task]) -> None:
        self._tasks[future] = tasks

    def next(self, timeout: float) -> Arrival | None:
        self._start()
        if not self._busy or self._busy[0][0] > self._time + timeout:
            self._time += timeout
            return None
        self._time, _, future, outcomes, worker = heapq.heappop(self._busy)
        if outcomes is None:
            self.deaths += 1
            self._dies[worker] = self._time + self._costs.restart + self._life()
            heapq.heappush(self._idle, (self._time + self._costs.restart, worker))
            future.set_exception(BrokenProcessPool("a process was terminated"))
        else:
            heapq.heappush(self._idle, (self._time, worker))
            future.set_result(outcomes)
            for outcome in outcomes:
                if isinstance(outcome, Made):
                    self._made[outcome.layer.path.name] = outcome.layer
        self.busy_at.append((self._time, len(self._busy)))
        return future, self._tasks.pop(future)

    def _start(self) -> None:
        started = 0
        for future, job in self._queued:
            if not self._idle or self._idle[0][0] > self._time:
                break
            started += 1
            _, worker = heapq.heappop(self._idle)
            seconds, outcomes = self._do(job)
            if self._time + seconds > self._dies[worker] > self._time:
                seconds, outcomes = self._dies[worker] - self._time, None
            elif self._dies[worker] <= self._time:  # it died, and came back, while it had nothing to do
                self._dies[worker] = self._time + self._life()
            self.work += seconds
            heapq.heappush(self._busy, (self._time + seconds, next(self._count), future, outcomes, worker))
        del self._queued[:started]
        self.busy_at.append((self._time, len(self._busy)))

    def _do(self, job: LayerJob | list[ResolveJob]) -> tuple[float, list[Outcome] | None]:
        if isinstance(job, list):
            done = job[: math.floor(LOOKING_UP / self._costs.resolve) + 1]
            return self._costs.resolve * len(done), [self._look_up(each) for each in done]
        size = job.layer.layer.blob.size or 0
        self.downloaded += size
        return self._costs.layer + size / self._costs.rate, [Made(job.layer.imported(size, reused=False))]

    def _look_up(self, job: ResolveJob) -> Resolved:
        chain = self._images.planned(int(str(job.source)))
        found = tuple(self._made.get(layer.path.name) for layer in chain)
        return Resolved("windows", None, "", chain, found)


# ---- one run ----


@dataclass(slots=True)
class Report:
    workers: int
    seconds: float
    ideal: float  # seconds: all work spread evenly, or the longest chain
    cluster: Cluster
    stored: int
    unshared: int  # bytes of all layers of all images

    @property
    def utilisation(self) -> float:
        return self.cluster.work / (self.workers * self.seconds)

    @property
    def ideal_utilisation(self) -> float:
        return self.cluster.work / (self.workers * self.ideal)


def simulate(images: Images, workers: int, costs: Costs = COSTS, seed: int = 1) -> Report:
    """Import all images into an empty store."""
    cluster = Cluster(images, workers, costs, seed)
    scheduler = Scheduler(Run(LayerStore(STORE), "", WINDOWS, ByteOptions(), True, DEFAULT_LIMITS))
    for number in range(len(images.chains)):
        scheduler.add(number, str(number))
    at_once = workers + 1 + workers // 8  # as import_images does it
    results = drive(
        scheduler,
        cluster,
        at_once,
        clock=cluster,
        progress=None,
        cancel=CancellationToken(),
        stop=lambda: None,
    )
    for result in results:
        assert result.error is None, result.error
        cluster.done_at.append(cluster.now())
    used = {chain[: at + 1]: images.sizes[chain[at]] for chain in images.chains for at in range(len(chain))}

    def seconds(size: int) -> float:
        return costs.layer + size / costs.rate

    longest = max(sum(seconds(images.sizes[number]) for number in chain) for chain in images.chains) + costs.resolve
    work = sum(map(seconds, used.values())) + costs.resolve * len(images.chains)
    stored = int(sum(used.values()) * costs.expansion)
    unshared = sum(images.sizes[number] for chain in images.chains for number in chain)
    return Report(workers, cluster.now(), max(work / workers, longest), cluster, stored, unshared)


def plot(path: Path, reports: list[Report], costs: Costs) -> None:
    """How busy the workers are, how fast images are done, and what sharing saves; each against the ideal."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "cimlayer", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, ((first, second), (third, fourth)) = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    ideal, ours = "0.55", "tab:blue"

    largest = reports[-1]
    every = largest.cluster.busy_at
    times, busy = zip(*every[:: max(1, len(every) // 200)], every[-1], strict=True)
    first.step(times, busy, where="post", color=ours, label="busy workers")
    first.axhline(largest.workers * largest.ideal_utilisation, color=ideal, ls="--", label="ideal, on the average")
    first.axvline(largest.ideal, color=ideal, ls=":", label="ideal end")
    first.set(title=f"{largest.workers:,} workers, empty store", xlabel="seconds", ylabel="busy workers")

    counts = [report.workers for report in reports]
    second.loglog(counts, [report.ideal for report in reports], "--", color=ideal, label="ideal")
    second.loglog(counts, [report.seconds for report in reports], "o-", color=ours, label="simulated")
    second.set(title=f"{len(largest.cluster.done_at):,} images", xlabel="workers", ylabel="seconds")

    third.semilogx(counts, [100 * report.ideal_utilisation for report in reports], "--", color=ideal, label="ideal")
    third.semilogx(counts, [100 * report.utilisation for report in reports], "o-", color=ours, label="simulated")
    third.set(title="utilisation", xlabel="workers", ylabel="% of the workers' time", ylim=(0, 105))

    distinct = largest.stored / costs.expansion
    rows = {
        "received: each\nimage alone": (largest.unshared, ideal),
        "received: each\nlayer once (ideal)": (distinct, ideal),
        "received: simulated": (largest.cluster.downloaded, ours),
        "stored: each\nimage alone": (largest.unshared * costs.expansion, ideal),
        "stored: simulated": (largest.stored, ours),
    }
    sizes, colors = zip(*rows.values(), strict=True)
    bars = fourth.barh(list(rows), [size / TB for size in sizes], color=colors)
    fourth.bar_label(bars, [f"{size / TB:,.1f} TB" for size in sizes], padding=3)
    fourth.set(title="bytes received and stored", xlabel="TB")
    fourth.invert_yaxis()
    fourth.margins(x=0.2)
    for axes in (second, third):
        axes.xaxis.set_major_formatter("{x:,.0f}")
    second.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (first, second, third):
        axes.legend(frameon=False)
        axes.grid(alpha=0.25)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate the import of many container images.")
    parser.add_argument("--images", type=int, default=10_000, metavar="N")
    parser.add_argument("--workers", type=int, action="append", metavar="N", help="repeat for more than one number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args()
    logging.getLogger("cimlayer").setLevel(logging.ERROR)  # of lost workers, too
    images = make_images(options.images, options.seed)
    print("| workers | seconds | ideal | x ideal | utilisation | ideal | workers lost | TB received | TB stored |")
    print("| ---: " * 9 + "|")
    reports = []
    begun = time.process_time()
    for workers in options.workers or [10, 30, 100, 300, 1000]:
        report = simulate(images, workers, seed=options.seed)
        reports.append(report)
        print(
            f"| {workers:,} | {report.seconds:,.0f} | {report.ideal:,.0f} | {report.seconds / report.ideal:.3f}"
            f" | {report.utilisation:.1%} | {report.ideal_utilisation:.1%} | {report.cluster.deaths}"
            f" | {report.cluster.downloaded / TB:.2f} | {report.stored / TB:.2f} |",
            flush=True,
        )
    taken = time.process_time() - begun
    layers = len({chain[: at + 1] for chain in images.chains for at in range(len(chain))})
    print(f"\n{len(images.chains):,} images, {layers:,} distinct layers; each image alone would get", end=" ")
    print(f"{reports[-1].unshared / TB:.1f} TB. Simulated in {taken:.1f} s of processor time.")
    if options.plot:
        plot(options.plot, reports, COSTS)


if __name__ == "__main__":
    main()
