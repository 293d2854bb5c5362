"""Of a file that may be a hive only what a hive can be is read."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import pytest

import cimlayer
from cimfs_ext.regf import Hive
from cimlayer.errors import CorruptHiveError
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.hivefiles import open_in_directory, open_in_image, read_hive
from support.hives import REG_BINARY, Node, Val, build, new_log
from support.images import add, writer
from support.layers import hive

HIVE = hive(a="b")


def state(number: int) -> bytes:
    """A dirty hive after a write, which its value tells."""
    node = Node(values=[Val("written", REG_BINARY, bytes([number]) * 8)])
    return build(node, sequences=(number + 1, number), timestamp=number)


LOG = new_log(state(2), 2, [(2, state(2)), (3, state(3))])


def test_logs_in_a_layer_directory_are_used(tmp_path: Path) -> None:
    (tmp_path / "Hives").mkdir()
    (tmp_path / "Hives" / "SYSTEM_DELTA").write_bytes(state(2))
    (tmp_path / "Hives" / "system_delta.log1").write_bytes(LOG)
    found = open_in_directory(LayerDirectory(tmp_path), r"Hives\SYSTEM_DELTA", "name")
    assert found.value("", "written").data == bytes([3]) * 8


def test_logs_in_an_image_are_used(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "hive", state(2))
        add(image, "HIVE.log1", LOG)
        image.commit()
    with cimlayer.ImageReader(tmp_path / "image.cim") as reader:
        assert open_in_image(reader, "hive", "name").value("", "written").data == bytes([3]) * 8


@pytest.mark.parametrize("may_be_empty", [False, True])
def test_a_file_of_no_bytes_is_a_hive_only_where_one_may_be(tmp_path: Path, may_be_empty: bool) -> None:
    (tmp_path / "hive").write_bytes(b"")
    directory = LayerDirectory(tmp_path)
    if may_be_empty:
        assert open_in_directory(directory, "hive", "name", may_be_empty=True).root.subkeys() == []
    else:
        with pytest.raises(CorruptHiveError, match="name: the file ends"):
            open_in_directory(directory, "hive", "name")


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
        assert open_in_image(reader, "hive", "name").to_bytes() == Hive.open(HIVE).to_bytes()
        tracemalloc.start()
        try:
            with pytest.raises(CorruptHiveError, match="name: not a registry hive"):
                open_in_image(reader, "hole", "name")
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()
