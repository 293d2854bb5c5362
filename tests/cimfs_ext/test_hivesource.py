"""Where the bytes of a hive come from."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from cimfs_ext.hivesource import read_file
from cimlayer import Hive

LARGE = (4 << 20) + 5  # more than what is read into huge pages


@pytest.mark.parametrize("size", [0, 10, LARGE])
def test_files_are_read_from_where_they_stand_to_their_end_or_the_size(size: int) -> None:
    data = random.Random(size).randbytes(size)
    file = io.BytesIO(b"before" + data + b"behind")
    file.seek(6)
    assert read_file(file, size) == data
    assert file.read() == b"behind"
    file.seek(6)
    assert read_file(file, size + LARGE) == data + b"behind"


class Trickling(io.RawIOBase):
    """A file that gives less than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        return self._file.readinto(buffer[: 1 << 20])


def test_short_reads_are_continued() -> None:
    data = random.Random(1).randbytes(LARGE)
    assert read_file(Trickling(data), LARGE) == data  # type: ignore[arg-type]


def test_a_large_hive_is_the_same_from_a_file(tmp_path: Path) -> None:
    hive = Hive.empty(0)
    for number in range(3):
        hive.set_value("Key", f"value {number}", 3, random.Random(number).randbytes(1 << 21))
    (tmp_path / "hive").write_bytes(hive.to_bytes())
    assert (tmp_path / "hive").stat().st_size > LARGE
    assert Hive.open(tmp_path / "hive").to_bytes() == hive.to_bytes()
