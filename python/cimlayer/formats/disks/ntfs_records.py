"""How NTFS encodes what it keeps: file records, their attributes, and index entries and blocks."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from cimlayer.formats.disks.extents import SECTOR

CLUSTER = 4096
RECORD = 1024
INDEX_BLOCK = 4096

_UPDATE_SEQUENCE_NUMBER = 1
_RECORD_HEADER = 0x38
_BLOCK_HEADER = 0x40
_INDEX_HEADER = 0x10  # the part of a node that entry offsets and sizes count from and include
_END_OF_ATTRIBUTES = struct.pack("<II", 0xFFFFFFFF, 0)


class Attribute(IntEnum):
    """Attribute type codes."""

    STANDARD_INFORMATION = 0x10
    ATTRIBUTE_LIST = 0x20
    FILE_NAME = 0x30
    OBJECT_ID = 0x40
    SECURITY_DESCRIPTOR = 0x50
    VOLUME_NAME = 0x60
    VOLUME_INFORMATION = 0x70
    DATA = 0x80
    INDEX_ROOT = 0x90
    INDEX_ALLOCATION = 0xA0
    BITMAP = 0xB0
    REPARSE_POINT = 0xC0
    EA_INFORMATION = 0xD0
    EA = 0xE0
    LOGGED_UTILITY_STREAM = 0x100


class RecordFlag(IntFlag):
    """Flags of a file record."""

    FREE = 0
    IN_USE = 1
    DIRECTORY = 2
    IN_EXTEND = 4
    VIEW_INDEX = 8


class Collation(IntEnum):
    """How the keys of an index are ordered."""

    FILE_NAME = 1
    U32 = 0x10
    SID = 0x11
    SECURITY_HASH = 0x12
    U32_ARRAY = 0x13


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive clusters of the volume; without ``lcn`` a hole."""

    lcn: int | None
    clusters: int

    @property
    def size(self) -> int:
        """The run's length in bytes."""
        return self.clusters * CLUSTER


def padded(data: bytes, multiple: int = 8) -> bytes:
    """Return ``data`` with zeros up to a multiple of ``multiple`` bytes."""
    return data + bytes(-len(data) % multiple)


def reference(number: int, sequence: int) -> int:
    """Return the file reference of record ``number`` in its use number ``sequence``."""
    return number | sequence << 48


def _protected(block: bytearray, array_offset: int) -> bytes:
    """Put the update sequence number at each sector's end, and what stood there into the array."""
    number = struct.pack("<H", _UPDATE_SEQUENCE_NUMBER)
    saved = number
    for end in range(SECTOR - 2, len(block), SECTOR):
        saved += block[end : end + 2]
        block[end : end + 2] = number
    block[array_offset : array_offset + len(saved)] = saved
    return bytes(block)


def file_record(
    number: int,
    sequence: int,
    flags: RecordFlag = RecordFlag.FREE,
    links: int = 0,
    attributes: Sequence[bytes] = (),
) -> bytes:
    """Return the 1 KiB record ``number``; ``attributes`` come encoded and in order of type and name."""
    body = bytearray()
    for instance, attribute in enumerate(attributes):
        start = len(body)
        body += attribute
        struct.pack_into("<H", body, start + 14, instance)
    body += _END_OF_ATTRIBUTES
    used = _RECORD_HEADER + len(body)
    assert used <= RECORD, f"record {number} needs {used} bytes"
    header = struct.pack(
        "<4sHHQHHHHIIQHHI",
        b"FILE",
        0x30,  # update sequence array
        1 + RECORD // SECTOR,
        0,  # no log record yet
        sequence,
        links,
        _RECORD_HEADER,
        flags,
        used,
        RECORD,
        0,  # a base record
        len(attributes),
        0,
        number,
    )
    return _protected(bytearray((header.ljust(_RECORD_HEADER, b"\0") + body).ljust(RECORD, b"\0")), 0x30)


def resident(kind: Attribute, value: bytes, name: str = "", *, indexed: bool = False) -> bytes:
    """Return an attribute whose value stands in the file record."""
    label = padded(name.encode("utf-16-le"))
    start = 0x18 + len(label)
    size = start + len(padded(value))
    header = struct.pack("<IIBBHHHIHBB", kind, size, 0, len(name), 0x18, 0, 0, len(value), start, int(indexed), 0)
    return header + label + padded(value)


def nonresident(kind: Attribute, run: Run, size: int, name: str = "") -> bytes:
    """Return an attribute of ``size`` bytes whose value stands in ``run``."""
    label = padded(name.encode("utf-16-le"))
    start = 0x40 + len(label)
    pairs = padded(_mapping_pairs(run))
    initialized = 0 if run.lcn is None else size
    header = struct.pack(
        "<IIBBHHHQQHHIQQQ",
        kind,
        start + len(pairs),
        1,
        len(name),
        0x40,
        0,
        0,
        0,
        run.clusters - 1,
        start,
        0,
        0,
        run.size,
        size,
        initialized,
    )
    return header + label + pairs


def _mapping_pairs(run: Run) -> bytes:
    length = _shortest_signed(run.clusters)
    place = b"" if run.lcn is None else _shortest_signed(run.lcn)
    return bytes([len(length) | len(place) << 4]) + length + place + b"\0"


def _shortest_signed(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)


def directory_entry(target: int, file_name: bytes) -> bytes:
    """Return the ``$I30`` entry of the file with reference ``target`` and that ``$FILE_NAME`` value."""
    key = padded(file_name)
    return struct.pack("<QHHI", target, 0x10 + len(key), len(file_name), 0) + key


def view_entry(key: bytes, data: bytes, padding: bytes = b"") -> bytes:
    """Return an entry of an index that maps ``key`` to ``data``."""
    body = padded(key + data + padding)
    return struct.pack("<HHIHHI", 0x10 + len(key), len(data), 0, 0x10 + len(body), len(key), 0) + body


_LAST_ENTRY = struct.pack("<QHHI", 0, 0x10, 0, 2)
_LAST_ENTRY_WITH_NODE_0 = struct.pack("<QHHIQ", 0, 0x18, 0, 3, 0)


def index_root(name: str, collation: Collation, entries: Sequence[bytes] = (), *, in_block: bool = False) -> bytes:
    """Return ``$INDEX_ROOT``; ``in_block`` leaves the entries to block 0 of ``$INDEX_ALLOCATION``."""
    nodes = b"".join(entries) + (_LAST_ENTRY_WITH_NODE_0 if in_block else _LAST_ENTRY)
    size = _INDEX_HEADER + len(nodes)
    indexed = Attribute.FILE_NAME if collation is Collation.FILE_NAME else 0
    value = struct.pack("<IIII", indexed, collation, INDEX_BLOCK, INDEX_BLOCK // CLUSTER)
    value += struct.pack("<IIII", _INDEX_HEADER, size, size, int(in_block)) + nodes
    return resident(Attribute.INDEX_ROOT, value, name)


def index_block(entries: Sequence[bytes]) -> bytes:
    """Return block 0 of an index: one leaf with all ``entries``."""
    nodes = b"".join(entries) + _LAST_ENTRY
    header = struct.pack("<4sHHQQ", b"INDX", 0x28, 1 + INDEX_BLOCK // SECTOR, 0, 0)
    to_nodes = _BLOCK_HEADER - len(header)
    header += struct.pack("<IIII", to_nodes, to_nodes + len(nodes), INDEX_BLOCK - len(header), 0)
    return _protected(bytearray((header.ljust(_BLOCK_HEADER, b"\0") + nodes).ljust(INDEX_BLOCK, b"\0")), 0x28)
