"""Dynamic and differencing VHDX files ([MS-VHDX]): only blocks that hold something are stored.

The file is laid out in whole MiB: headers, an empty log, metadata, the block allocation table, the blocks.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO
from uuid import UUID

from cimfs_ext.crc32c import crc32c
from cimlayer.errors import FormatError
from cimlayer.formats.disks.extents import MIB, SECTOR, Extent, split
from cimlayer.formats.disks.identity import IdentitySource

KIB = 1 << 10
BLOCK = MIB
MAX_SIZE = 64 << 40

_PHYSICAL_SECTOR = 4096
_SECTOR_SIZES = (512, 4096)  # logical and physical
_FULLY_PRESENT = 6

_HEADERS = (64 * KIB, 128 * KIB)
_HEADER_SIZE = 4 * KIB
_REGION_TABLES = (192 * KIB, 256 * KIB)
_REGION_TABLE_SIZE = 64 * KIB
_MAX_ENTRIES = 2047  # of 32 bytes, in the region table and in the metadata table
_LOG = MIB
_METADATA = 2 * MIB
_METADATA_ITEMS = 64 * KIB  # where items begin in the metadata region, after its table
_TABLE = 3 * MIB

_NO_GUID = UUID(int=0)
_BAT_REGION = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA_REGION = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_DISK_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_DISK_ID = UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
_LOGICAL_SECTOR_SIZE = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_PHYSICAL_SECTOR_SIZE = UUID("cda348c7-445d-4471-9cc9-e9885251c556")
_PARENT_LOCATOR = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
_VHDX_PARENT = UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")

_REQUIRED = 4
_ABOUT_THE_DISK = 2


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a disk and the differencing disks on it have in common: size and sectors in bytes, its identifier."""

    size: int
    disk_id: UUID
    logical_sector: int = SECTOR
    physical_sector: int = _PHYSICAL_SECTOR

    @property
    def chunk_blocks(self) -> int:
        """Payload blocks whose sector bitmaps fit into one bitmap block."""
        return (self.logical_sector << 23) // BLOCK


@dataclass(frozen=True, slots=True)
class Parent:
    """What a differencing disk must know of the disk below it, with the content that it had."""

    geometry: Geometry
    data_write_guid: UUID


def write_dynamic(file: BinaryIO, size: int, extents: Iterable[Extent], source: IdentitySource) -> Parent:
    """Write a disk of ``size`` bytes holding ``extents`` to the empty ``file``; returns it as one to build on."""
    blocks: dict[int, int] = {}
    geometry = Geometry(size, source.guid("base virtual disk"))
    table_size = _table_size(geometry)
    next_block = _TABLE + table_size
    for number, start, piece in split(extents, BLOCK):
        if number not in blocks:
            blocks[number] = next_block
            next_block += BLOCK
        file.seek(blocks[number] + start)
        file.write(piece)
    data_write_guid = _write_structures(file, table_size, source, "base", _disk_metadata(geometry))
    for number, offset in blocks.items():
        file.seek(_TABLE + 8 * (number + number // geometry.chunk_blocks))
        file.write(struct.pack("<Q", offset | _FULLY_PRESENT))
    file.truncate(next_block)
    return Parent(geometry, data_write_guid)


def write_differencing(file: BinaryIO, parent: Parent, parent_path: str, source: IdentitySource) -> None:
    """Write a disk that equals ``parent`` to the empty ``file``, with its sectors and identifier ([MS-VHDX] 2.6.1.2).

    ``parent_path`` is relative to the file's directory and has backslashes.
    """
    table_size = _table_size(parent.geometry)
    linkage = f"{{{parent.data_write_guid}}}"
    locator = _parent_locator({"parent_linkage": linkage, "relative_path": parent_path})
    metadata = _disk_metadata(parent.geometry, locator)
    _write_structures(file, table_size, source, "differencing", metadata)
    file.truncate(_TABLE + table_size)


def read_parent(file: BinaryIO, name: str) -> Parent:
    """Read what a differencing disk must know of the VHDX ``file``, which errors call ``name``.

    ``FormatError`` for what is no VHDX or damaged, has a log to be replayed or impossible sectors.
    """
    if _read(file, 0, 8, name) != b"vhdxfile":
        raise FormatError("not a VHDX file", name, 0)
    header = _current_header(file, name)
    write_guid, log_guid = UUID(bytes_le=header[32:48]), UUID(bytes_le=header[48:64])
    if log_guid != _NO_GUID:
        raise FormatError("the disk was not closed: its log must be replayed first", name, _HEADERS[0])
    region = _metadata_region(file, name)
    items = _metadata_items(file, region, name)
    logical = _number(file, items, _LOGICAL_SECTOR_SIZE, 4, name)
    physical = _number(file, items, _PHYSICAL_SECTOR_SIZE, 4, name)
    for kind, sector_size in (("logical", logical), ("physical", physical)):
        if sector_size not in _SECTOR_SIZES:
            raise FormatError(f"{kind} sectors of {sector_size} bytes, expected 512 or 4096", name, region)
    size = _number(file, items, _DISK_SIZE, 8, name)
    if size % logical or not 0 < size <= MAX_SIZE:
        raise FormatError(f"impossible disk size {size}", name, region)
    return Parent(Geometry(size, UUID(bytes_le=_item(file, items, _DISK_ID, 16, name)), logical, physical), write_guid)


def _table_size(geometry: Geometry) -> int:
    """Room for every payload block and, as differencing disks have it, a bitmap entry for every chunk."""
    chunks = -(-geometry.size // (BLOCK * geometry.chunk_blocks))
    return -(-chunks * (geometry.chunk_blocks + 1) * 8 // MIB) * MIB


def _write_structures(file: BinaryIO, table_size: int, source: IdentitySource, disk: str, metadata: bytes) -> UUID:
    """Write all but the blocks and their table; returns the GUID of the data written."""

    def put(offset: int, data: bytes) -> None:
        file.seek(offset)
        file.write(data)

    put(0, b"vhdxfile" + "cimlayer".encode("utf-16-le"))
    file_write_guid, data_write_guid = source.guid(f"{disk} file write"), source.guid(f"{disk} data write")
    guids = file_write_guid.bytes_le + data_write_guid.bytes_le
    for sequence, offset in enumerate(_HEADERS):
        fields = struct.pack("<Q32s16sHHIQ", sequence, guids, _NO_GUID.bytes_le, 0, 1, MIB, _LOG)
        put(offset, _with_checksum(b"head", fields, _HEADER_SIZE))
    regions = struct.pack("<II", 2, 0)
    regions += struct.pack("<16sQII", _BAT_REGION.bytes_le, _TABLE, table_size, 1)
    regions += struct.pack("<16sQII", _METADATA_REGION.bytes_le, _METADATA, MIB, 1)
    region_table = _with_checksum(b"regi", regions, _REGION_TABLE_SIZE)
    for offset in _REGION_TABLES:
        put(offset, region_table)
    put(_METADATA, metadata)
    return data_write_guid


def _with_checksum(signature: bytes, fields: bytes, size: int) -> bytes:
    unsigned = (signature + bytes(4) + fields).ljust(size, b"\0")
    return signature + struct.pack("<I", crc32c(unsigned)) + unsigned[8:]


def _disk_metadata(geometry: Geometry, parent_locator: bytes | None = None) -> bytes:
    """Return the metadata region's table and items."""
    has_parent = 0 if parent_locator is None else 2
    items = [
        (_FILE_PARAMETERS, _REQUIRED, struct.pack("<II", BLOCK, has_parent)),
        (_DISK_SIZE, _REQUIRED | _ABOUT_THE_DISK, struct.pack("<Q", geometry.size)),
        (_DISK_ID, _REQUIRED | _ABOUT_THE_DISK, geometry.disk_id.bytes_le),
        (_LOGICAL_SECTOR_SIZE, _REQUIRED | _ABOUT_THE_DISK, struct.pack("<I", geometry.logical_sector)),
        (_PHYSICAL_SECTOR_SIZE, _REQUIRED | _ABOUT_THE_DISK, struct.pack("<I", geometry.physical_sector)),
    ]
    if parent_locator is not None:
        items.append((_PARENT_LOCATOR, _REQUIRED, parent_locator))
    table = struct.pack("<8sHH20s", b"metadata", 0, len(items), b"")
    values = b""
    for kind, flags, value in items:
        table += struct.pack("<16sIIII", kind.bytes_le, _METADATA_ITEMS + len(values), len(value), flags, 0)
        values += value
    return table.ljust(_METADATA_ITEMS, b"\0") + values


def _parent_locator(pairs: dict[str, str]) -> bytes:
    header = struct.pack("<16sHH", _VHDX_PARENT.bytes_le, 0, len(pairs))
    offset = len(header) + 12 * len(pairs)
    entries = texts = b""
    for key, value in pairs.items():
        key_text, value_text = key.encode("utf-16-le"), value.encode("utf-16-le")
        entries += struct.pack("<IIHH", offset, offset + len(key_text), len(key_text), len(value_text))
        texts += key_text + value_text
        offset += len(key_text) + len(value_text)
    return header + entries + texts


def _read(file: BinaryIO, offset: int, size: int, name: str) -> bytes:
    if offset > file.seek(0, io.SEEK_END) - size:  # a file system may refuse to go where no file of its can reach
        raise FormatError(f"the file ends within {size} bytes", name, offset)
    file.seek(offset)
    return file.read(size)


def _checked(file: BinaryIO, signature: bytes, offset: int, size: int, name: str) -> bytes | None:
    """Return a structure that carries a checksum, or None when it is damaged."""
    data = _read(file, offset, size, name)
    intact = data[:4] == signature and data[4:8] == struct.pack("<I", crc32c(data[:4] + bytes(4) + data[8:]))
    return data if intact else None


def _current_header(file: BinaryIO, name: str) -> bytes:
    headers = [_checked(file, b"head", offset, _HEADER_SIZE, name) for offset in _HEADERS]
    intact = [header for header in headers if header is not None]
    if not intact:
        raise FormatError("neither VHDX header is intact", name, _HEADERS[0])
    return max(intact, key=lambda header: int.from_bytes(header[8:16], "little"))


def _metadata_region(file: BinaryIO, name: str) -> int:
    for offset in _REGION_TABLES:
        table = _checked(file, b"regi", offset, _REGION_TABLE_SIZE, name)
        if table is None:
            continue
        count = min(int.from_bytes(table[8:12], "little"), _MAX_ENTRIES)
        for guid, start, _, _ in struct.iter_unpack("<16sQII", table[16 : 16 + 32 * count]):
            if guid == _METADATA_REGION.bytes_le:
                return int(start)
        raise FormatError("the region table names no metadata", name, offset)
    raise FormatError("neither VHDX region table is intact", name, _REGION_TABLES[0])


def _metadata_items(file: BinaryIO, region: int, name: str) -> dict[UUID, tuple[int, int]]:
    """Return offset and length of each metadata item."""
    table = _read(file, region, _METADATA_ITEMS, name)
    if table[:8] != b"metadata":
        raise FormatError("no metadata table", name, region)
    count = min(int.from_bytes(table[10:12], "little"), _MAX_ENTRIES)
    return {
        UUID(bytes_le=kind): (region + offset, length)
        for kind, offset, length, _, _ in struct.iter_unpack("<16sIIII", table[32 : 32 + 32 * count])
    }


def _number(file: BinaryIO, items: dict[UUID, tuple[int, int]], kind: UUID, size: int, name: str) -> int:
    return int.from_bytes(_item(file, items, kind, size, name), "little")


def _item(file: BinaryIO, items: dict[UUID, tuple[int, int]], kind: UUID, size: int, name: str) -> bytes:
    offset, length = items.get(kind, (-1, 0))
    if length != size:
        raise FormatError(f"metadata item {{{kind}}} is missing or not {size} bytes long", name, offset)
    return _read(file, offset, size, name)
