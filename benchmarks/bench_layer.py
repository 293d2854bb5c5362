"""Layers: parsing, importing and extracting at scale, on chains and in large directories.

`pytest benchmarks/bench_layer.py --benchmark-only`; `extra_info` has the microseconds a file. Everything happens in
the temporary directory of pytest (`--basetemp`): on a tmpfs it shows our own time, on a disk that of the disk too.
"""

from __future__ import annotations

import io
import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.inputs import DESCRIPTORS, random_layer
from cimfs_ext.backupstream import BackupStreamParser, BackupStreamWriter
from cimfs_ext.reader import ImageReader
from cimlayer import extract, import_layer

MIB = 1 << 20
CHAIN = 100


SHAPES: dict[str, tuple[int, Callable[[], bytes]]] = {
    "20,000 small files": (20_000, lambda: random_layer(20_000, 1000)),
    "50 large files": (50, lambda: random_layer(50, 4 * MIB)),
    "one directory with 2,000 entries": (2_000, lambda: random_layer(2_000, 100, 2_000)),
    "one directory with 100,000 entries": (100_000, lambda: random_layer(100_000, 100, 100_000)),
}


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> tuple[int, bytes]:
    """How many files a tar has, and the tar."""
    files, make = SHAPES[request.param]
    return files, make()


def note_time_a_file(benchmark, files: int) -> None:
    benchmark.extra_info["us a file"] = round(benchmark.stats.stats.median * 1e6 / files, 2)


def test_import(benchmark, shape: tuple[int, bytes], tmp_path: Path) -> None:
    files, tar = shape
    names = (tmp_path / str(number) for number in itertools.count())
    benchmark.pedantic(lambda: import_layer(io.BytesIO(tar), next(names), sync=False), rounds=5, warmup_rounds=1)
    note_time_a_file(benchmark, files)


def test_extract(benchmark, shape: tuple[int, bytes], tmp_path: Path) -> None:
    files, tar = shape
    import_layer(io.BytesIO(tar), tmp_path / "1", sync=False)
    names = (tmp_path / f"tree-{number}" for number in itertools.count())
    with ImageReader(tmp_path / "cim-layers" / "1.cim") as image:
        benchmark.pedantic(lambda: extract(image, "", next(names)), rounds=3, warmup_rounds=1)
    note_time_a_file(benchmark, files)


@pytest.mark.parametrize("depth", [1, CHAIN], ids="{} layers below".format)
def test_import_onto_a_chain(benchmark, depth: int, tmp_path: Path) -> None:
    """A hundred files onto few and onto many layers of as many files each."""
    import_layer(io.BytesIO(random_layer(1000, 1000)), tmp_path / "0", sync=False)
    chain = [tmp_path / "0"]

    def add(name: str) -> None:
        tar = io.BytesIO(random_layer(100, 1000, hives=False, name=name))
        import_layer(tar, tmp_path / name, chain, sync=False)

    for number in range(1, depth):
        add(str(number))
        chain.insert(0, tmp_path / str(number))
    names = (f"top-{number}" for number in itertools.count())
    benchmark.pedantic(lambda: add(next(names)), rounds=10, warmup_rounds=1)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("size", [1000, MIB], ids="{} bytes".format)
def test_backup_stream(benchmark, size: int) -> None:
    """The Win32 backup stream of one file, in pieces of 64 KiB."""
    content = random.Random(size).randbytes(size)
    make = BackupStreamWriter
    stream = b"".join([*make.security(DESCRIPTORS[0]), *make.data(content), *make.alternate_stream("zone", b"12")])
    pieces = [stream[at : at + 65536] for at in range(0, len(stream), 65536)]

    def parse() -> int:
        parser = BackupStreamParser(size, "file")
        events = sum(len(parser.feed(piece)) for piece in pieces)
        parser.finish()
        return events

    assert benchmark(parse) > 0
