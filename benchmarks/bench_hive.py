"""Merging a delta into a hive, beside the time that hivex and regipy take to read the two.

Run: ``pytest benchmarks/bench_hive.py --benchmark-enable --benchmark-only``. Two sizes: 100,000 keys with 500,000
values (60 MB), and a SOFTWARE hive of 100 MB; the delta changes a tenth of the keys and adds as many. "Reading" is
opening each hive and visiting each key with its name and each value with its name, type and data, in the language of
the reader: C for hivex (compiled here against libhivex, which maps the files), Python for regipy. Merging is the whole
of it: two files read, merged, and the result as bytes; "mapped" maps the files as hivex does. The peak of the merge is
under ``extra_info`` (``--benchmark-json``). regipy takes many minutes, because it reads to the end of the file for
each value of up to four bytes; ``-k "not regipy"`` leaves it out.
"""

from __future__ import annotations

import mmap
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cimfs_ext.regf import Hive

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

KEYS = {"100,000 keys": 100_000, "100 MB": 168_000}
VALUES_PER_KEY = 5
FILETIME = 133_000_000_000_000_000


def sample(keys: range, marker: str) -> Hive:
    """Keys three levels deep with values of the usual kinds and sizes."""
    hive = Hive.empty(FILETIME)
    text = f"{marker}: C:\\Program Files\\Common Files\\Vendor\\component.dll\0".encode("utf-16-le")
    for i in keys:
        path = f"Software\\Vendor {i % 200}\\{{{i * 2654435761 % 2**32:08x}-0000-4000-8000-{i:012}}}"
        hive.set_value(path, "", 1, text[: 20 + i % 60 * 2])
        hive.set_value(path, "InstallPath", 2, text)
        hive.set_value(path, "Start", 4, i.to_bytes(4, "little"))
        hive.set_value(path, "Signature", 3, text[: 8 + i % 40])
        hive.set_value(path, f"Setting {i % 7}", 11, i.to_bytes(8, "little"))
    return hive


@dataclass(frozen=True, slots=True)
class Hives:
    """A base and a delta that changes a tenth of its keys and adds as many."""

    base: Path
    delta: Path
    keys: int
    changed: int


@pytest.fixture(scope="module", params=KEYS)
def hives(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Hives:
    folder = tmp_path_factory.mktemp("hives")
    keys = KEYS[request.param]
    made = Hives(folder / "SOFTWARE_BASE", folder / "Software_Delta", keys, keys // 10)
    made.base.write_bytes(sample(range(keys), "base").to_bytes())
    made.delta.write_bytes(sample(range(keys - made.changed, keys + made.changed), "delta").to_bytes())
    return made


def mapped(path: Path) -> mmap.mmap:
    """The file as hivex sees it: mapped, not read."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


PEAK = """
import resource, sys
from cimfs_ext.regf import Hive
hive = Hive.open(sys.argv[1])
hive.merge(Hive.open(sys.argv[2]))
hive.to_bytes()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.parametrize("source", [Path, mapped], ids=["read", "mapped"])
def test_merge(benchmark: BenchmarkFixture, hives: Hives, source: Callable[[Path], Path | mmap.mmap]) -> None:
    def merge() -> bytes:
        hive = Hive.open(source(hives.base))
        hive.merge(Hive.open(source(hives.delta)))
        return hive.to_bytes()

    command = [sys.executable, "-c", PEAK, hives.base, hives.delta]
    benchmark.extra_info["base bytes"] = hives.base.stat().st_size
    benchmark.extra_info["peak bytes, files read"] = int(subprocess.check_output(command))
    result = Hive.open(benchmark(merge))
    assert sum(1 for _ in result.walk()) == hives.keys + hives.changed + 202
    assert sum(len(key.values()) for key in result.walk()) >= (hives.keys + hives.changed) * VALUES_PER_KEY


def test_read(benchmark: BenchmarkFixture, hives: Hives) -> None:
    benchmark(Hive.open, hives.base)


HIVEX = """
#include <hivex.h>
#include <stdio.h>
#include <stdlib.h>

static size_t seen;

static void visit(hive_h *h, hive_node_h node) {
    free(hivex_node_name(h, node));
    hive_value_h *values = hivex_node_values(h, node);
    for (size_t i = 0; values && values[i]; i++, seen++) {
        hive_type type;
        size_t size;
        free(hivex_value_key(h, values[i]));
        free(hivex_value_value(h, values[i], &type, &size));
    }
    free(values);
    hive_node_h *children = hivex_node_children(h, node);
    for (size_t i = 0; children && children[i]; i++)
        visit(h, children[i]);
    free(children);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        hive_h *h = hivex_open(argv[i], 0);
        if (!h)
            return 1;
        visit(h, hivex_root(h));
        hivex_close(h);
    }
    printf("%zu", seen);
    return 0;
}
"""


def test_hivex_reading(benchmark: BenchmarkFixture, hives: Hives, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    source, program = tmp_path / "read.c", tmp_path / "read"
    source.write_text(HIVEX, encoding="utf-8")
    built = compiler and subprocess.run(
        [compiler, "-O2", source, "-lhivex", "-o", program], check=False, capture_output=True
    )
    if not built or built.returncode:
        pytest.skip("libhivex-dev or a C compiler is missing")
    seen = benchmark.pedantic(subprocess.check_output, ([program, hives.base, hives.delta],), rounds=5)
    assert int(seen) == (hives.keys + 2 * hives.changed) * VALUES_PER_KEY


def test_regipy_reading(benchmark: BenchmarkFixture, hives: Hives) -> None:
    from regipy.registry import NKRecord, RegistryHive  # noqa: PLC0415

    def visit(key: NKRecord) -> int:
        return len(list(key.iter_values(trim_values=False))) + sum(visit(subkey) for subkey in key.iter_subkeys())

    seen = benchmark.pedantic(lambda: visit(RegistryHive(hives.base).root), rounds=1)
    assert seen == hives.keys * VALUES_PER_KEY
