"""Processes that import into one store, and are killed at any time: `python -m benchmarks.soak DIR`.

Eight processes import images of 2,000 small layers, each in its own order. One after the other is killed and started
again, and garbage is collected beside them, sometimes with layers that others are about to build on. When all have come
to their ends, every layer must be there and whole, and nothing else. `tests/test_fleet.py` runs a small one.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.inputs import CONFIG, HIVES
from benchmarks.layouts import Layout, small_layer
from cimlayer import LayerStore, import_images
from examples.minimal_hive import minimal_hive

FEW = 10  # as many layers to each below it


def make(root: Path, layers: int) -> list[str]:
    """A layout of images with three layers; all of them together have so many."""
    layout = Layout(root)
    hives = [(f"{CONFIG}/{name}", minimal_hive(name)) for name in HIVES]
    bases = [
        layout.add_layer(small_layer(b"base %d" % number, hives=hives)) for number in range(-(-layers // (FEW * FEW)))
    ]
    middles = [layout.add_layer(small_layer(b"middle %d" % number)) for number in range(-(-layers // FEW))]
    tops = [layout.add_layer(small_layer(b"top %d" % n * 100)) for n in range(layers - len(bases) - len(middles))]
    locations = []
    for number, top in enumerate(tops):
        middle = number % len(middles)
        chain = [bases[middle % len(bases)], middles[middle], top]
        locations.append(layout.add_image(f"image{number}", chain))
    return locations


def import_all(store: str, list_: str, seed: int) -> int:
    """What each process does."""
    locations = Path(list_).read_text("utf-8").split()
    random.Random(seed).shuffle(locations)
    with ThreadPoolExecutor(1) as executor:
        results = import_images(locations, store, executor, workers=1, sync=False, scratch_disks=False)
        failed = [result for result in results if result.error is not None]
    for result in failed[:5]:
        print(f"{result.source}: {result.error!r}", file=sys.stderr)
    return bool(failed)


def soak(root: Path, layers: int, processes: int, kills: int, seed: int) -> None:
    """Raises AssertionError if anything is not as it should be."""
    chance = random.Random(seed)
    locations = make(root / "layout", layers)
    list_ = root / "list"
    list_.write_text("\n".join(locations), encoding="utf-8")
    store = LayerStore(root / "store")
    begun = time.monotonic()

    def start(number: int) -> subprocess.Popen[bytes]:
        words = ["-m", "benchmarks.soak", str(root), "--worker", str(number), "--layers", str(layers)]
        return subprocess.Popen([sys.executable, *words])

    running = [start(number) for number in range(processes)]
    killed = collected = removed = 0
    while killed < kills and any(process.poll() is None for process in running):
        time.sleep(chance.expovariate(1 / 0.4))
        if store.path.exists() and chance.random() < 0.3:
            size = sum(layer.size for layer in store.layers())
            garbage = store.collect_garbage(int(size * 0.9) if chance.random() < 0.3 else None)
            removed += len(garbage.layers)
            collected += len(garbage.remains)
        victim = chance.randrange(processes)
        if running[victim].poll() is None:
            running[victim].kill()
            running[victim].wait()
            killed += 1
            running[victim] = start(victim)
    ends = [process.wait() for process in running]
    again = start(processes).wait()  # what was collected after the last one had it
    garbage = store.collect_garbage()
    collected += len(garbage.remains)
    problems = store.check(content=True)
    found = len(store.layers())
    left = store.collect_garbage(dry_run=True).remains
    print(
        f"{layers:,} layers, {processes} processes, {killed} killed, {collected} remains collected,"
        f" {removed} layers removed and imported again, {time.monotonic() - begun:.0f} s:"
        f" {found:,} layers, {len(problems)} problems, {len(left)} files left behind"
    )
    assert ends == [0] * processes, ends
    assert again == 0
    assert (found, problems, left) == (layers, [], ())


def main() -> None:
    parser = argparse.ArgumentParser(description="Import into one store with processes that are killed at any time.")
    parser.add_argument("directory", type=Path, help="a new directory")
    parser.add_argument("--layers", type=int, default=2000, metavar="N")
    parser.add_argument("--processes", type=int, default=8, metavar="N")
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.directory.absolute()
    if options.worker is not None:
        sys.exit(import_all(str(root / "store"), str(root / "list"), options.worker))
    root.mkdir(parents=True)
    soak(root, options.layers, options.processes, options.kills, options.seed)


if __name__ == "__main__":
    main()
