"""Of a file that may be a hive only what a hive can be is read."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import pytest

import cimlayer
from cimfs_ext.regf import Hive
from cimlayer.errors import CorruptHiveError
from cimlayer.layer.hivefiles import read_hive, read_hive_of
from support.images import add, writer
from support.layers import hive

HIVE = hive(a="b")


def claiming(size: int) -> bytes:
    return HIVE[:40] + size.to_bytes(4, "little") + HIVE[44:]


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (HIVE, HIVE),
        (HIVE + bytes(100_000), HIVE),
        (HIVE[:-1], HIVE[:-1]),
        (claiming(0x7FFFF000), claiming(0x7FFFF000)),
        (claiming(0x80000000), claiming(0x80000000)[:4096]),
        (b"x" * 100_000, b"x" * 4096),
        (b"regf", b"regf"),
        (b"", b""),
    ],
)
def test_a_hive_is_read_as_far_as_it_says(data: bytes, read: bytes) -> None:
    assert read_hive(io.BytesIO(data)) == read


def test_a_hole_of_an_image_is_no_hive_and_takes_no_memory(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "hive", HIVE)
        image.create_file("hole", size=1 << 47)
        image.commit()
    with cimlayer.ImageReader(tmp_path / "image.cim") as reader:
        assert read_hive_of(reader, "hive") == HIVE
        tracemalloc.start()
        try:
            with pytest.raises(CorruptHiveError, match="not a registry hive"):
                Hive.open(read_hive_of(reader, "hole"))
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()
