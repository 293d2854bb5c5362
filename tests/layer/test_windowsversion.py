"""The version of Windows out of SOFTWARE hives, two of Windows itself among them."""

from __future__ import annotations

import pytest

from cimfs_ext.regf import Hive
from cimlayer.errors import FormatError, KeyNotFoundError
from cimlayer.layer.utilityvm import CURRENT_VERSION
from cimlayer.layer.windowsversion import version_of
from support.hives import corpus

REG_SZ, REG_DWORD = 1, 4


def hive(**values: tuple[int, bytes]) -> Hive:
    made = Hive.empty(0)
    for name, (kind, data) in values.items():
        made.set_value(CURRENT_VERSION, name, kind, data)
    return made


WHOLE: dict[str, tuple[int, bytes]] = {
    "CurrentMajorVersionNumber": (REG_DWORD, b"\x0a\0\0\0"),
    "CurrentMinorVersionNumber": (REG_DWORD, b"\0\0\0\0"),
    "CurrentBuild": (REG_SZ, "26100\0".encode("utf-16-le")),
    "UBR": (REG_DWORD, b"\x66\x09\0\0"),
}


def test_the_four_numbers() -> None:
    assert version_of(hive(**WHOLE)) == "10.0.26100.2406"


@pytest.mark.parametrize("name", WHOLE)
def test_each_is_needed_and_must_be_a_number(name: str) -> None:
    with pytest.raises((KeyNotFoundError, FormatError), match=name):
        version_of(hive(**{key: value for key, value in WHOLE.items() if key != name}))
    with pytest.raises(FormatError, match=name):
        version_of(hive(**{**WHOLE, name: (REG_SZ, b"x\0\0\0")}))


@pytest.mark.parametrize("version", ["10.0.20348.45", "10.0.26100.2406"])
def test_hives_of_windows(version: str) -> None:
    assert version_of(Hive.open(corpus(f"SOFTWARE_{version.split('.')[2]}"))) == version
