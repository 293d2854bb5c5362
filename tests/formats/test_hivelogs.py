"""Transaction logs are found beside a hive."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimlayer.errors import DirtyHiveWarning
from cimlayer.formats.bcd import BcdStore
from cimlayer.formats.hivelogs import logs_among, open_hive_file
from support.hives import REG_BINARY, Node, Val, build, new_log


def state(number: int) -> bytes:
    """A dirty hive after a write: a boot store of one value that says which."""
    node = Node(values=[Val("written", REG_BINARY, bytes([number]) * 8)], subkeys=[Node("Objects")])
    return build(node, sequences=(number + 1, number), timestamp=number)


LOG = new_log(state(2), 2, [(2, state(2)), (3, state(3))])


def test_names_of_logs() -> None:
    names = ["ntuser.dat.LOG1", "NTUSER.DAT.log2", "NTUSER.DAT.LOG", "NTUSER.DAT", "NTUSER.DAT.LOG3", "x.LOG1"]
    assert logs_among("Ntuser.dat", names) == ["NTUSER.DAT.LOG", "NTUSER.DAT.log2", "ntuser.dat.LOG1"]


@pytest.mark.parametrize("log", ["NTUSER.DAT.LOG1", "ntuser.dat.LOG1", "Ntuser.Dat.log2", "ntuser.dat.log"])
def test_logs_in_any_case_are_used(tmp_path: Path, log: str) -> None:
    (tmp_path / "NTUSER.DAT").write_bytes(state(2))
    (tmp_path / log).write_bytes(LOG)
    (tmp_path / "NTUSER.DAT.LOG2.d").mkdir()
    hive = open_hive_file(tmp_path / "NTUSER.DAT")
    assert hive.recovered
    assert hive.name == str(tmp_path / "NTUSER.DAT")
    assert hive.value("", "written").data == bytes([3]) * 8


def test_a_store_is_read_with_its_logs(tmp_path: Path) -> None:
    (tmp_path / "BCD").write_bytes(state(2))
    with pytest.warns(DirtyHiveWarning, match="BCD: a dirty hive"):
        BcdStore.open(tmp_path / "BCD")
    (tmp_path / "bcd.LOG1").write_bytes(LOG)
    BcdStore.open(tmp_path / "BCD")


def test_a_directory_with_the_name_of_a_log_is_none(tmp_path: Path) -> None:
    (tmp_path / "BCD").write_bytes(state(2))
    (tmp_path / "BCD.LOG").mkdir()
    with pytest.warns(DirtyHiveWarning):
        assert open_hive_file(tmp_path / "BCD").dirty
