"""An empty NTFS 3.1 volume: 4 KiB clusters, 512-byte sectors, 1 KiB file records.

Everything but the backup boot sector stands in the first clusters, the file table last so that it can grow in
one piece. The log is uninitialised (all ones), which a driver takes as empty.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cimfs_ext.names import upcase_table
from cimlayer.formats.disks import ntfs_security
from cimlayer.formats.disks.extents import MIB, SECTOR, Extent, shifted
from cimlayer.formats.disks.ntfs_records import (
    CLUSTER,
    INDEX_BLOCK,
    RECORD,
    Attribute,
    Collation,
    RecordFlag,
    Run,
    directory_entry,
    file_record,
    index_block,
    index_root,
    nonresident,
    padded,
    reference,
    resident,
    view_entry,
)

_MAX_CLUSTERS = (1 << 32) - 1
_BOOT_SIZE = 8192
_MIRRORED_RECORDS = 4
_RECORD_COUNT = 64
_MIN_LOG, _MAX_LOG = 2 * MIB, 16 * MIB
_LOG_SHARE = 200  # of a smaller volume, one part in this many is log

_MFT, _MFT_MIRROR, _LOG_FILE, _VOLUME, _ATTRIBUTE_DEFINITIONS, _ROOT, _BITMAP, _BOOT = range(8)
_BAD_CLUSTERS, _SECURE, _UPCASE, _EXTEND = range(8, 12)
_RESERVED = range(12, 16)
_FIRST_FREE = 16
_QUOTA, _OBJECT_IDS, _REPARSE_POINTS = range(24, 27)

_HIDDEN_SYSTEM = 0x6
_IS_DIRECTORY = 0x10000000
_IS_VIEW_INDEX = 0x20000000

# Name, type, flags (2 indexed, 0x40 always resident, 0x80 may be non-resident), smallest and largest size.
_ANY = (1 << 64) - 1
_DEFINITIONS: tuple[tuple[Attribute, int, int, int], ...] = (
    (Attribute.STANDARD_INFORMATION, 0x40, 0x30, 0x48),
    (Attribute.ATTRIBUTE_LIST, 0x80, 0, _ANY),
    (Attribute.FILE_NAME, 0x42, 0x44, 0x242),
    (Attribute.OBJECT_ID, 0x40, 0, 0x100),
    (Attribute.SECURITY_DESCRIPTOR, 0x80, 0, _ANY),
    (Attribute.VOLUME_NAME, 0x40, 2, 0x100),
    (Attribute.VOLUME_INFORMATION, 0x40, 12, 12),
    (Attribute.DATA, 0, 0, _ANY),
    (Attribute.INDEX_ROOT, 0x40, 0, _ANY),
    (Attribute.INDEX_ALLOCATION, 0x80, 0, _ANY),
    (Attribute.BITMAP, 0x80, 0, _ANY),
    (Attribute.REPARSE_POINT, 0x80, 0, 0x4000),
    (Attribute.EA_INFORMATION, 0x40, 8, 8),
    (Attribute.EA, 0, 0, 0x10000),
    (Attribute.LOGGED_UTILITY_STREAM, 0x80, 0, 0x10000),
)
_DEFINITION_TABLE_SIZE = 2560
_UPCASE_SIZE = 2 << 16


@dataclass(frozen=True, slots=True)
class _File:
    """A system file: what stands in its record after ``$STANDARD_INFORMATION`` and ``$FILE_NAME``."""

    number: int
    name: str
    attributes: Sequence[bytes] = ()
    size: int = 0
    allocated: int = 0
    kind: RecordFlag = RecordFlag.IN_USE
    parent: int = _ROOT
    security_id: int = ntfs_security.SYSTEM_FILE_ID

    @property
    def reference(self) -> int:
        return reference(self.number, _sequence(self.number))

    @property
    def file_attributes(self) -> int:
        if self.kind & RecordFlag.DIRECTORY:
            return _HIDDEN_SYSTEM | _IS_DIRECTORY
        return _HIDDEN_SYSTEM | (_IS_VIEW_INDEX if self.kind & RecordFlag.VIEW_INDEX else 0)

    def file_name(self, created: int) -> bytes:
        """Return the value of ``$FILE_NAME``, which is the key in the parent directory as well."""
        return struct.pack(
            "<Q4QQQIIBB",
            reference(self.parent, _sequence(self.parent)),
            *[created] * 4,
            self.allocated,
            self.size,
            self.file_attributes,
            0,
            len(self.name),
            3,  # the name serves Win32 and DOS
        ) + self.name.encode("utf-16-le")

    def entry(self, created: int) -> bytes:
        return directory_entry(self.reference, self.file_name(created))

    def record(self, created: int) -> bytes:
        own = [
            _standard_information(created, self.file_attributes & ~_IS_DIRECTORY, self.security_id),
            resident(Attribute.FILE_NAME, self.file_name(created), indexed=True),
        ]
        return file_record(self.number, _sequence(self.number), self.kind, 1, own + list(self.attributes))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where on the volume each system file's content stands, from its first cluster on."""

    boot: Run
    mirror: Run
    root_index: Run
    definitions: Run
    upcase: Run
    descriptors: Run
    log: Run
    bitmap: Run
    table_bitmap: Run
    table: Run

    @property
    def clusters(self) -> int:
        return _first_cluster(self.table) + self.table.clusters


def format_volume(size: int, *, first_sector: int, serial: int, created: int) -> list[Extent]:
    """Return what an empty volume of ``size`` bytes holds; the rest is zero.

    ``first_sector`` is where on the disk the volume begins, ``created`` the FILETIME of its files.
    ``ValueError`` when it would be too small for its own files or have more clusters than NTFS can count.
    """
    total = (size - SECTOR) // CLUSTER  # the last sector, a copy of the first, belongs to no cluster
    if total > _MAX_CLUSTERS:
        raise ValueError(f"an NTFS volume of {size} bytes has more than {_MAX_CLUSTERS} clusters")
    security = ntfs_security.descriptor_stream()
    layout = _lay_out(size, total, security.size)
    if layout.clusters >= total:
        raise ValueError(f"{size} bytes are too few for an NTFS volume with {layout.clusters} clusters of its own")

    extended = _extended_files(created)
    root = _root_files(layout, total, security.size, extended, created)
    records = _records([*root, *extended], created)
    boot_sector = _boot_sector(size, first_sector, layout, serial)
    contents: list[tuple[Run, bytes | bytearray]] = [
        (layout.boot, boot_sector),
        (layout.mirror, records[: _MIRRORED_RECORDS * RECORD]),
        (layout.root_index, index_block(_sorted_entries(root, created))),
        (layout.definitions, _attribute_definitions()),
        (layout.upcase, upcase_table()),
        *_empty_log(layout.log),
        (layout.bitmap, _cluster_bitmap(layout.clusters, total)),
        (layout.table_bitmap, _table_bitmap()),
        (layout.table, records),
    ]
    return [
        *((_offset(run), data) for run, data in contents),
        *shifted(security.extents, _offset(layout.descriptors)),
        (size - SECTOR, boot_sector),
    ]


def _empty_log(log: Run) -> Iterator[tuple[Run, bytes]]:
    """All ones, in pieces that share their memory."""
    ones = b"\xff" * MIB
    end = _first_cluster(log) + log.clusters
    for first in range(_first_cluster(log), end, MIB // CLUSTER):
        piece = Run(first, min(MIB // CLUSTER, end - first))
        yield piece, ones[: piece.size]


def _lay_out(size: int, total: int, security_size: int) -> _Layout:
    used = 0

    def run(length: int) -> Run:
        nonlocal used
        first, used = used, used + -(-length // CLUSTER)
        return Run(first, used - first)

    return _Layout(
        boot=run(_BOOT_SIZE),
        mirror=run(_MIRRORED_RECORDS * RECORD),
        root_index=run(INDEX_BLOCK),
        definitions=run(_DEFINITION_TABLE_SIZE),
        upcase=run(_UPCASE_SIZE),
        descriptors=run(security_size),
        log=run(min(_MAX_LOG, max(_MIN_LOG, size // _LOG_SHARE))),
        bitmap=run(_bitmap_size(total)),
        table_bitmap=run(_RECORD_COUNT // 8),
        table=run(_RECORD_COUNT * RECORD),
    )


def _root_files(
    layout: _Layout, total: int, security_size: int, extended: Sequence[_File], created: int
) -> list[_File]:
    """Return the files of the root directory, itself among them; ``extended`` are those in ``$Extend``."""

    def plain(number: int, name: str, run: Run, size: int, *more: bytes) -> _File:
        data = nonresident(Attribute.DATA, run, size)
        return _File(number, name, [data, *more], size=size, allocated=run.size)

    table_bitmap = nonresident(Attribute.BITMAP, layout.table_bitmap, _RECORD_COUNT // 8)
    root_index = [
        index_root("$I30", Collation.FILE_NAME, in_block=True),
        nonresident(Attribute.INDEX_ALLOCATION, layout.root_index, INDEX_BLOCK, "$I30"),
        resident(Attribute.BITMAP, struct.pack("<Q", 1), "$I30"),
    ]
    bad_clusters = [
        resident(Attribute.DATA, b""),
        nonresident(Attribute.DATA, Run(None, total), total * CLUSTER, "$Bad"),
    ]
    secure = [
        nonresident(Attribute.DATA, layout.descriptors, security_size, "$SDS"),
        ntfs_security.hash_index(),
        ntfs_security.id_index(),
    ]
    extend = [index_root("$I30", Collation.FILE_NAME, _sorted_entries(extended, created))]
    directory = RecordFlag.IN_USE | RecordFlag.DIRECTORY
    view_index = RecordFlag.IN_USE | RecordFlag.VIEW_INDEX
    return [
        plain(_MFT, "$MFT", layout.table, _RECORD_COUNT * RECORD, table_bitmap),
        plain(_MFT_MIRROR, "$MFTMirr", layout.mirror, _MIRRORED_RECORDS * RECORD),
        plain(_LOG_FILE, "$LogFile", layout.log, layout.log.size),
        _File(_VOLUME, "$Volume", _volume_attributes()),
        plain(_ATTRIBUTE_DEFINITIONS, "$AttrDef", layout.definitions, _DEFINITION_TABLE_SIZE),
        _File(_ROOT, ".", root_index, kind=directory, security_id=ntfs_security.ROOT_ID),
        plain(_BITMAP, "$Bitmap", layout.bitmap, _bitmap_size(total)),
        plain(_BOOT, "$Boot", layout.boot, _BOOT_SIZE),
        _File(_BAD_CLUSTERS, "$BadClus", bad_clusters),
        _File(_SECURE, "$Secure", secure, kind=view_index),
        plain(_UPCASE, "$UpCase", layout.upcase, _UPCASE_SIZE),
        _File(_EXTEND, "$Extend", extend, kind=directory),
    ]


def _first_cluster(run: Run) -> int:
    assert run.lcn is not None, "a hole stands nowhere"
    return run.lcn


def _offset(run: Run) -> int:
    return _first_cluster(run) * CLUSTER


def _sequence(number: int) -> int:
    """A well-known record's sequence number is its own number, any other new record's is 1."""
    return number if 0 < number < 24 else 1


def _records(files: Sequence[_File], created: int) -> bytes:
    records = {file.number: file.record(created) for file in files}
    nameless = [
        _standard_information(created, _HIDDEN_SYSTEM, ntfs_security.SYSTEM_FILE_ID),
        resident(Attribute.DATA, b""),
    ]
    for number in _RESERVED:
        records[number] = file_record(number, _sequence(number), RecordFlag.IN_USE, 0, nameless)
    numbers = range(_RECORD_COUNT)
    return b"".join(records.get(number) or file_record(number, _sequence(number)) for number in numbers)


def _extended_files(created: int) -> list[_File]:
    """Return the files in ``$Extend``: empty indexes, and in ``$Quota`` what applies to users by default."""
    unlimited = _ANY
    quota_defaults = struct.pack("<IIQQQQQ", 2, 1, 0, created, unlimited, unlimited, 0)
    indexes = (
        (
            _QUOTA,
            "$Quota",
            [
                index_root("$O", Collation.SID),
                index_root("$Q", Collation.U32, [view_entry(struct.pack("<I", 1), quota_defaults)]),
            ],
        ),
        (_OBJECT_IDS, "$ObjId", [index_root("$O", Collation.U32_ARRAY)]),
        (_REPARSE_POINTS, "$Reparse", [index_root("$R", Collation.U32_ARRAY)]),
    )
    kind = RecordFlag.IN_USE | RecordFlag.IN_EXTEND | RecordFlag.VIEW_INDEX
    return [_File(number, name, roots, kind=kind, parent=_EXTEND) for number, name, roots in indexes]


def _sorted_entries(files: Sequence[_File], created: int) -> list[bytes]:
    return [file.entry(created) for file in sorted(files, key=lambda file: file.name.upper())]


def _standard_information(created: int, file_attributes: int, security_id: int) -> bytes:
    value = struct.pack("<4QIIIIIIQQ", *[created] * 4, file_attributes, 0, 0, 0, 0, security_id, 0, 0)
    return resident(Attribute.STANDARD_INFORMATION, value)


def _volume_attributes() -> list[bytes]:
    return [
        resident(Attribute.VOLUME_NAME, b""),
        resident(Attribute.VOLUME_INFORMATION, struct.pack("<QBBH", 0, 3, 1, 0)),  # version 3.1, clean
        resident(Attribute.DATA, b""),
    ]


def _attribute_definitions() -> bytes:
    table = b"".join(
        struct.pack("<128sIIIIQQ", f"${kind.name}".encode("utf-16-le"), kind, 0, 0, flags, smallest, largest)
        for kind, flags, smallest, largest in _DEFINITIONS
    )
    return padded(table, _DEFINITION_TABLE_SIZE)


def _bitmap_size(total: int) -> int:
    return -(-total // 64) * 8


def _table_bitmap() -> bytes:
    in_use = [*range(_FIRST_FREE), _QUOTA, _OBJECT_IDS, _REPARSE_POINTS]
    bits: int = sum(1 << number for number in in_use)
    return bits.to_bytes(_RECORD_COUNT // 8, "little")


def _cluster_bitmap(used: int, total: int) -> bytearray:
    """Mark the first ``used`` clusters, and the bits after the volume's end."""
    size = _bitmap_size(total)
    bitmap = bytearray(size)
    full, rest = divmod(used, 8)
    bitmap[:full] = b"\xff" * full
    bitmap[full] = (1 << rest) - 1
    tail = int.from_bytes(bitmap[-8:], "little") | ((1 << 64) - (1 << (total - (size - 8) * 8)))
    bitmap[-8:] = tail.to_bytes(8, "little")
    return bitmap


def _boot_sector(size: int, first_sector: int, layout: _Layout, serial: int) -> bytes:
    """The fields by which a volume is mounted; there is no boot code."""
    fields = struct.pack(
        "<3s8sHB7sBHHHII4sQQQb3sb3sQI",
        b"\xeb\x52\x90",
        b"NTFS    ",
        SECTOR,
        CLUSTER // SECTOR,
        b"",
        0xF8,  # a hard disk
        0,
        63,  # sectors per track
        255,  # heads
        first_sector,
        0,
        b"\x80\0\x80\0",
        size // SECTOR - 1,
        layout.table.lcn,
        layout.mirror.lcn,
        -(RECORD.bit_length() - 1),  # smaller than a cluster: 2 to this power, in bytes
        b"",
        INDEX_BLOCK // CLUSTER,
        b"",
        serial,
        0,
    )
    return fields.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"
