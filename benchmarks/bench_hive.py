"""Merging a hive of 100,000 keys and 500,000 values, beside the time that hivex and regipy take to read it.

Run: ``pytest benchmarks/bench_hive.py --benchmark-enable --benchmark-only``. "Reading" is opening the
hive and visiting each key with its name and each value with its name, type and data, in the language of
the reader: C for hivex (compiled here against libhivex), Python for regipy. Merging is the whole of it:
two files read, merged, and the result as bytes. regipy takes many minutes, because it reads to the end of
the file for each value of up to four bytes; ``-k "not regipy"`` leaves it out.
"""

from __future__ import annotations

import mmap
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cimfs_ext.regf import Hive

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

KEYS, VALUES_PER_KEY, CHANGED = 100_000, 5, 10_000
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


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The base, and a delta that changes a tenth of its keys and adds as many."""
    folder = tmp_path_factory.mktemp("hives")
    base, delta = folder / "SOFTWARE_BASE", folder / "Software_Delta"
    base.write_bytes(sample(range(KEYS), "base").to_bytes())
    delta.write_bytes(sample(range(KEYS - CHANGED, KEYS + CHANGED), "delta").to_bytes())
    return base, delta


def mapped(path: Path) -> mmap.mmap:
    """The file as hivex sees it: mapped, not read."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@pytest.mark.parametrize("source", [Path, mapped], ids=["read", "mapped"])
def test_merge(
    benchmark: BenchmarkFixture, files: tuple[Path, Path], source: Callable[[Path], Path | mmap.mmap]
) -> None:
    base, delta = files

    def merge() -> bytes:
        hive = Hive.open(source(base))
        hive.merge(Hive.open(source(delta)))
        return hive.to_bytes()

    benchmark.extra_info["base bytes"] = base.stat().st_size
    result = Hive.open(benchmark(merge))
    assert sum(1 for _ in result.walk()) == KEYS + CHANGED + 202
    assert sum(len(key.values()) for key in result.walk()) >= (KEYS + CHANGED) * VALUES_PER_KEY


def test_read(benchmark: BenchmarkFixture, files: tuple[Path, Path]) -> None:
    benchmark(Hive.open, files[0])


HIVEX = """
#include <hivex.h>
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
    hive_h *h = argc == 2 ? hivex_open(argv[1], 0) : NULL;
    if (!h)
        return 1;
    visit(h, hivex_root(h));
    hivex_close(h);
    return seen == 500000 ? 0 : 2;
}
"""


def test_hivex_reading(benchmark: BenchmarkFixture, files: tuple[Path, Path], tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    source, program = tmp_path / "read.c", tmp_path / "read"
    source.write_text(HIVEX, encoding="utf-8")
    built = compiler and subprocess.run(
        [compiler, "-O2", source, "-lhivex", "-o", program], check=False, capture_output=True
    )
    if not built or built.returncode:
        pytest.skip("libhivex-dev or a C compiler is missing")
    benchmark.pedantic(subprocess.run, ([program, files[0]],), {"check": True}, rounds=5)


def test_regipy_reading(benchmark: BenchmarkFixture, files: tuple[Path, Path]) -> None:
    from regipy.registry import NKRecord, RegistryHive  # noqa: PLC0415

    def visit(key: NKRecord) -> int:
        return len(list(key.iter_values(trim_values=False))) + sum(visit(subkey) for subkey in key.iter_subkeys())

    assert benchmark.pedantic(lambda: visit(RegistryHive(files[0]).root), rounds=1) == KEYS * VALUES_PER_KEY
