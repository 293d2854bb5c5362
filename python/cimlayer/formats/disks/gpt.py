"""The partition table of a scratch disk: a protective MBR and the two copies of a GUID partition table."""

from __future__ import annotations

import struct
import zlib
from uuid import UUID

from cimlayer.formats.disks.extents import MIB, SECTOR, Extent

MSR_OFFSET = MIB
MSR_SIZE = 16 * MIB
DATA_OFFSET = MSR_OFFSET + MSR_SIZE

_MSR_TYPE = UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae")
_BASIC_DATA_TYPE = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")

_ENTRY_COUNT = 128
_ENTRY_SIZE = 128
_ENTRY_SECTORS = _ENTRY_COUNT * _ENTRY_SIZE // SECTOR


def data_partition_size(disk_size: int) -> int:
    """Return the size in bytes of the basic data partition: the rest of the disk, in whole MiB."""
    return (disk_size - (1 + _ENTRY_SECTORS) * SECTOR) // MIB * MIB - DATA_OFFSET


def partition_table(disk_size: int, disk: UUID, msr: UUID, data: UUID) -> list[Extent]:
    """Return both copies of the table of a disk of ``disk_size`` bytes (boot-and-disks.md, GPT)."""
    data_size = data_partition_size(disk_size)
    entries = _entry(_MSR_TYPE, msr, MSR_OFFSET, MSR_SIZE, "Microsoft reserved partition")
    entries += _entry(_BASIC_DATA_TYPE, data, DATA_OFFSET, data_size, "Basic data partition")
    entries = entries.ljust(_ENTRY_COUNT * _ENTRY_SIZE, b"\0")

    last = disk_size // SECTOR - 1
    primary = _header(disk, entries, own=1, other=last, table=2, last=last)
    backup = _header(disk, entries, own=last, other=1, table=last - _ENTRY_SECTORS, last=last)
    front, back = _protective_mbr(last) + primary + entries, entries + backup
    return [(0, front), (disk_size - len(back), back)]


def _entry(kind: UUID, guid: UUID, offset: int, size: int, name: str) -> bytes:
    first, end = offset // SECTOR, (offset + size) // SECTOR
    text = name.encode("utf-16-le")
    return struct.pack("<16s16sQQQ72s", kind.bytes_le, guid.bytes_le, first, end - 1, 0, text)


def _header(disk: UUID, entries: bytes, *, own: int, other: int, table: int, last: int) -> bytes:
    def pack(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            b"EFI PART",
            0x10000,  # revision 1.0
            92,
            checksum,
            0,
            own,
            other,
            2 + _ENTRY_SECTORS,
            last - 1 - _ENTRY_SECTORS,
            disk.bytes_le,
            table,
            _ENTRY_COUNT,
            _ENTRY_SIZE,
            zlib.crc32(entries),
        )

    return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")


def _protective_mbr(last: int) -> bytes:
    """One partition of type 0xEE over the whole disk, its CHS fields as UEFI asks for them."""
    partition = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF))
    return bytes(446) + partition.ljust(64, b"\0") + b"\x55\xaa"
