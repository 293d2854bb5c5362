"""Images: forks of small and large parents, creating many files, listing, checking.

`pytest benchmarks/bench_image.py --benchmark-enable --benchmark-only`; `extra_info` has the bytes written.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader

DIRECTORY = 0x10
FILES_PER_DIRECTORY = 100
FORK_LIMIT = 2 << 20
COUNTS = (2_000, 1_000_000)


def fill(image: ImageWriter, count: int) -> None:
    """Files of some 20 bytes, no two alike, a hundred to a directory."""
    for i in range(count):
        directory = f"d{i // FILES_PER_DIRECTORY}"
        if i % FILES_PER_DIRECTORY == 0:
            image.create_file(directory, attributes=DIRECTORY)
        data = b"content of file %d" % i
        image.create_file(f"{directory}\\f{i}.txt", size=len(data))
        image.write(data)


@pytest.fixture(scope="module", params=COUNTS, ids="{} files".format)
def parent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A directory with `parent.cim`, and how many files that has."""
    directory = tmp_path_factory.mktemp("images")
    with ImageWriter(directory, None, "parent.cim", sync=False) as image:
        fill(image, request.param)
        image.commit()
    yield directory, request.param


def directory_size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


@pytest.mark.parametrize("directories", [1, 10], ids="in {} directories".format)
def test_fork_that_adds_ten_files(benchmark, parent: tuple[Path, int], directories: int) -> None:
    """In ten directories of a large parent, ten file tables change; 2,000 files have but two."""
    directory, count = parent
    names = (f"fork{directories}-{i}.cim" for i in itertools.count())
    before = directory_size(directory)

    def fork() -> None:
        with ImageWriter(directory, "parent.cim", next(names), sync=False) as image:
            for i in range(10):
                at = i % directories * count // 10 // FILES_PER_DIRECTORY
                data = b"added to the fork: %d" % i
                image.create_file(f"d{at}\\added{i}.txt", size=len(data))
                image.write(data)
            image.commit()

    benchmark.pedantic(fork, rounds=20, warmup_rounds=1)
    written = (directory_size(directory) - before) // 21
    benchmark.extra_info["bytes written"] = written
    assert written < FORK_LIMIT


def test_create_ten_thousand_files(benchmark, tmp_path: Path) -> None:
    names = (f"{i}.cim" for i in itertools.count())

    def create() -> None:
        with ImageWriter(tmp_path, None, next(names), sync=False) as image:
            fill(image, 10_000)
            image.commit()

    benchmark.pedantic(create, rounds=5, warmup_rounds=1)


def test_list_everything(benchmark, parent: tuple[Path, int]) -> None:
    directory, count = parent

    def walk() -> int:
        with ImageReader(directory / "parent.cim") as image:
            return sum(1 for _ in image.walk())

    assert benchmark.pedantic(walk, rounds=3) == count + count // FILES_PER_DIRECTORY


def test_verify(benchmark, parent: tuple[Path, int]) -> None:
    directory, count = parent

    def verify() -> int:
        with ImageReader(directory / "parent.cim") as image:
            report = image.verify()
        assert report.ok
        return report.files

    assert benchmark.pedantic(verify, rounds=3) == count
