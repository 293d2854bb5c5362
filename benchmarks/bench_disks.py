"""Scratch disks: ours beside ``qemu-img create`` and ``mkntfs``, which make an unpartitioned volume.

``python benchmarks/bench_disks.py`` prints the median of a few runs and the space that the files take.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cimlayer.formats.disks import create_scratch_disk

SIZE = 20 << 30
ROUNDS = 7


def ours(directory: Path) -> None:
    create_scratch_disk(directory / "blank-base.vhdx", directory / "blank.vhdx", SIZE)


def qemu_and_mkntfs(directory: Path) -> None:
    """Format a sparse raw file, then make it a dynamic VHDX; qemu-img knows no differencing VHDX."""
    raw, disk = directory / "volume.raw", directory / "blank-base.vhdx"
    commands = (
        ["qemu-img", "create", "-q", "-f", "raw", raw, str(SIZE)],
        ["mkntfs", "--quiet", "--force", "--quick", "--cluster-size", "4096", raw],
        ["qemu-img", "convert", "-O", "vhdx", "-o", "block_size=1M,subformat=dynamic", raw, disk],
    )
    for command in commands:
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
    raw.unlink()


def measure(label: str, make: Callable[[Path], None]) -> None:
    seconds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            started = time.perf_counter()
            make(Path(name))
            seconds.append(time.perf_counter() - started)
            files = [path.stat() for path in Path(name).iterdir()]
    length = sum(file.st_size for file in files) / 2**20
    stored = sum(file.st_blocks * 512 for file in files) / 2**20
    median = statistics.median(seconds) * 1000
    print(f"{label:<24}{median:8.1f} ms   {length:6.1f} MiB long   {stored:6.1f} MiB stored")


if __name__ == "__main__":
    measure("cimlayer, both disks", ours)
    if shutil.which("qemu-img") and shutil.which("mkntfs"):
        measure("qemu-img + mkntfs, base", qemu_and_mkntfs)
    else:
        print("qemu-img + mkntfs: not installed")
