"""Scratch disks for a whole store."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimlayer.layer.scratch import create_scratch_disks
from support.disks import GIB, opened


def test_a_store_gets_one_pair(tmp_path: Path) -> None:
    store = tmp_path / "snapshots"
    create_scratch_disks(store, sync=False)
    assert sorted(path.name for path in store.iterdir()) == ["blank-base.vhdx", "blank.vhdx"]
    with opened(store / "blank.vhdx") as disk:
        assert disk.size == 20 * GIB
        assert disk.parent is not None
    before = (store / "blank-base.vhdx").stat()
    with pytest.raises(FileExistsError, match="blank-base"):
        create_scratch_disks(store, sync=False)
    assert (store / "blank-base.vhdx").stat().st_mtime_ns == before.st_mtime_ns


def test_a_store_may_be_named_by_its_directory_of_images(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    create_scratch_disks(tmp_path / "store" / "cim-layers", sync=False)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["blank-base.vhdx", "blank.vhdx"]


def test_a_disk_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "blank.vhdx").write_bytes(b"in use")
    with pytest.raises(FileExistsError, match=r"blank\.vhdx"):
        create_scratch_disks(tmp_path, sync=False)
    assert [path.name for path in tmp_path.iterdir()] == ["blank.vhdx"]
