from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cimfs_ext.regf import Hive
from cimlayer.errors import FormatError
from cimlayer.formats.bcd import BOOT_VOLUME
from cimlayer.layer.utilityvm import LAST_BUILD_LEFT_ALONE, build_number, patch_system_hive
from support.hives import REG_BINARY, REG_DWORD, REG_SZ, corpus, our_tree, with_checksum

CURRENT_VERSION = r"Microsoft\Windows NT\CurrentVersion"


def software(kind: int, data: bytes) -> Hive:
    hive = Hive.empty(0, name="layer 7: SOFTWARE")
    hive.set_value(CURRENT_VERSION, "CurrentBuild", kind, data)
    return hive


def patched(data: bytes) -> bytes:
    hive = Hive.open(data)
    patch_system_hive(hive)
    return hive.to_bytes()


def system() -> bytes:
    """A whole SYSTEM hive, marked as cleanly written, as hives in images are."""
    hive = bytearray(corpus("SYSTEM_WIN_10_1709"))
    hive[8:12] = hive[4:8]
    return with_checksum(bytes(hive))


@pytest.mark.parametrize(("name", "build"), [("SOFTWARE_20348", 20348), ("SOFTWARE_26100", 26100)])
def test_build_number_is_read_from_real_hives(name: str, build: int) -> None:
    assert build_number(Hive.open(corpus(name))) == build


def test_only_builds_after_server_2022_are_processed() -> None:
    older, newer = (build_number(Hive.open(corpus(f"SOFTWARE_{build}"))) for build in (20348, 26100))
    assert older <= LAST_BUILD_LEFT_ALONE < newer


@pytest.mark.parametrize("text", ["26100\0", "26100", "26100\0\0"])
def test_build_number_needs_no_terminator(text: str) -> None:
    assert build_number(software(REG_SZ, text.encode("utf-16-le"))) == 26100


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (REG_SZ, b""),
        (REG_SZ, "\0".encode("utf-16-le")),
        (REG_SZ, "26100.1\0".encode("utf-16-le")),
        (REG_SZ, "-1\0".encode("utf-16-le")),
        (REG_SZ, " 26100\0".encode("utf-16-le")),
        (REG_SZ, "٢٦١٠٠\0".encode("utf-16-le")),
        (REG_SZ, b"2\0006"),
        (REG_DWORD, struct.pack("<I", 26100)),
        (REG_BINARY, "26100\0".encode("utf-16-le")),
    ],
)
def test_a_build_that_is_no_number_is_an_error_that_names_the_hive(kind: int, data: bytes) -> None:
    with pytest.raises(FormatError, match="layer 7: SOFTWARE: CurrentBuild is not a build number"):
        build_number(software(kind, data))


def test_a_missing_build_is_an_error_that_names_the_hive() -> None:
    with pytest.raises(FormatError, match=r"layer 7: SOFTWARE: no value .*CurrentBuild"):
        build_number(Hive.empty(0, name="layer 7: SOFTWARE"))


PATCHED = {
    (r"ControlSet001\Control", "BootContainerGuid"): (REG_SZ, f"{{{BOOT_VOLUME}}}\0".encode("utf-16-le")),
    (r"ControlSet001\Services\UnionFS", "Start"): (REG_DWORD, struct.pack("<I", 0)),
    (r"ControlSet001\Services\wcifs", "Start"): (REG_DWORD, struct.pack("<I", 4)),
    ("Setup", "BootPathOverride"): (REG_SZ, "\\Windows\\\0".encode("utf-16-le")),
}


def test_system_hive_is_told_to_boot_from_the_cim_and_nothing_else() -> None:
    before, after = (our_tree(Hive.open(hive)) for hive in (system(), patched(system())))
    folded = {path.upper(): path for path in after}
    for (path, name), value in PATCHED.items():
        spelled = folded[path.upper()]
        assert after[spelled][2].pop(name) == value
        if spelled in before:
            before[spelled][2].pop(name, None)
    for path, key in before.items():
        assert after.pop(path) == key
    assert [key[2] for key in after.values()] == [{}] * len(after)


def test_missing_keys_are_made() -> None:
    hive = Hive.open(patched(corpus("OffHive")))
    for (path, name), (kind, data) in PATCHED.items():
        value = hive.value(path, name)
        assert (value.type, value.data) == (kind, data)


def test_patching_twice_gives_the_same_bytes() -> None:
    once = patched(corpus("OffHive"))
    assert patched(once) == once


def test_regipy_reads_the_patched_values(tmp_path: Path) -> None:
    from regipy.registry import RegistryHive

    path = tmp_path / "SYSTEM"
    path.write_bytes(patched(system()))
    hive = RegistryHive(str(path))
    assert hive.get_key(r"\ControlSet001\Control").get_value("BootContainerGuid") == f"{{{BOOT_VOLUME}}}"
    assert hive.get_key(r"\ControlSet001\Services\wcifs").get_value("Start") == 4
    assert hive.get_key(r"\Setup").get_value("BootPathOverride") == "\\Windows\\"
