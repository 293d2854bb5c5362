"""The files of a utility VM that closing a layer looks at, as small as they can be."""

from __future__ import annotations

from uuid import UUID

from cimfs_ext.regf import Hive
from cimlayer.formats.bcd import BOOT_VOLUME, BcdStore, CimfsDevice, Element, GptPartition
from cimlayer.formats.bcd.store import BOOT_MANAGER
from cimlayer.layer.standard import UTILITY_VM_BCD, UTILITY_VM_BOOT_MANAGER, UTILITY_VM_SOFTWARE, UTILITY_VM_SYSTEM
from support.tars import TarBuilder

LOADER = UUID("00000001-0002-0003-0405-060708090a0b")
REG_SZ, REG_DWORD = 1, 4


def small_store() -> BcdStore:
    """A boot manager and the loader that is its default."""
    hive = Hive.empty(0)
    hive.create_key("Objects", 0)
    store = BcdStore(hive)
    store.create_object(BOOT_MANAGER, 0x10100002, "manager")
    store.create_object(LOADER, 0x10200003, "loader")
    store.set(BOOT_MANAGER, Element.DEFAULT_OBJECT, LOADER)
    store.set(LOADER, Element.DEVICE, CimfsDevice(BOOT_VOLUME))
    store.set(LOADER, Element.OS_DEVICE, GptPartition(LOADER, BOOT_VOLUME))
    return store


def add_utility_vm(tar: TarBuilder) -> None:
    """The directory, both hives, the store and the boot manager."""
    software, system = Hive.empty(0), Hive.empty(0)
    build = "26100\0".encode("utf-16-le")
    software.set_value(r"Microsoft\Windows NT\CurrentVersion", "CurrentBuild", REG_SZ, build, 0)
    system.set_value("Select", "Current", REG_DWORD, b"\1\0\0\0", 0)
    system.set_value("ControlSet001", "x", REG_DWORD, b"\1\0\0\0", 0)
    tar.directory("UtilityVM")
    for path, data in (
        (UTILITY_VM_SOFTWARE, software.to_bytes()),
        (UTILITY_VM_SYSTEM, system.to_bytes()),
        (UTILITY_VM_BCD, small_store().to_bytes()),
        (UTILITY_VM_BOOT_MANAGER, b"MZ"),
    ):
        tar.file(path.replace("\\", "/"), data)
