"""Boot configuration: a utility VM's store, read, shown and changed so that the VM boots from a CIM."""

from __future__ import annotations

from uuid import UUID

from cimlayer.formats.bcd.devices import (
    BootDevice,
    CimfsDevice,
    CompositeDevice,
    Device,
    GptPartition,
    MbrPartition,
    OtherDevice,
    RamDisk,
    VmbusDevice,
    decode_device,
    encode_device,
)
from cimlayer.formats.bcd.store import DEVICE_OPTIONS, BcdStore, Element, ElementValue
from cimlayer.formats.bcd.text import describe
from cimlayer.formats.disks import DiskIdentity

__all__ = [
    "BOOT_VOLUME",
    "BcdStore",
    "BootDevice",
    "CimfsDevice",
    "CompositeDevice",
    "Device",
    "Element",
    "ElementValue",
    "GptPartition",
    "MbrPartition",
    "OtherDevice",
    "RamDisk",
    "VmbusDevice",
    "decode_device",
    "describe",
    "encode_device",
    "patch_for_cim",
]

BOOT_VOLUME = UUID("b890454c-80de-4e98-a7ab-56b74b4fbd0c")
"""The volume that the CIM becomes in the utility VM; its SYSTEM hive names the same one."""

_CIMFS_OPTIONS = UUID("763e9fea-502d-434f-aad9-5fabe9c91a7b")
_COMPOSITE_OPTIONS = UUID("e1787220-d17f-49e7-977a-d8fe4c8537e2")
_CIM_SHARE = UUID("c63c9bdf-5fa5-4208-b03f-6b458b365592")


def patch_for_cim(store: BcdStore, cim_path: str, disk: DiskIdentity) -> None:
    r"""Make the default entry boot from a CIM laid over a template disk (hcsshim, internal/wclayer/cim/bcd.go).

    ``cim_path`` is the CIM as the host shares it, ``cim-layers\NAME.cim``; ``disk`` identifies
    SystemTemplateBase.vhdx. ``FormatError`` or ``KeyNotFoundError`` when the store has no default entry; the store is
    unchanged then.
    """
    default = store.resolve("{default}")
    store.set(default, Element.RESTART_ON_FAILURE, True)

    store.create_object(_CIMFS_OPTIONS, DEVICE_OPTIONS, "CimFS Device Options")
    store.set(_CIMFS_OPTIONS, Element.CIMFS_PARENT_DEVICE, VmbusDevice(_CIM_SHARE))
    store.set(_CIMFS_OPTIONS, Element.CIMFS_ROOT_DIRECTORY, "\\" + cim_path.replace("/", "\\").lstrip("\\"))

    store.create_object(_COMPOSITE_OPTIONS, DEVICE_OPTIONS, "Composite Device Options")
    template = GptPartition(disk.disk_guid, disk.partition_guid)
    store.set(_COMPOSITE_OPTIONS, Element.PRIMARY_DEVICE, template)
    store.set(_COMPOSITE_OPTIONS, Element.SECONDARY_DEVICE, CimfsDevice(BOOT_VOLUME, _CIMFS_OPTIONS))

    system = CompositeDevice(_COMPOSITE_OPTIONS)
    store.set(default, Element.DEVICE, system)
    store.set(default, Element.OS_DEVICE, system)
    store.set(default, Element.PATH, r"\UtilityVM\Files\Windows\System32\winload.efi")
    store.set(default, Element.SYSTEM_ROOT, r"\UtilityVM\Files\Windows")
