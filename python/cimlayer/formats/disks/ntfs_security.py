"""The security descriptors of a new volume, and the ``$Secure`` stream and indexes that files share."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

from cimlayer.formats.disks.extents import Extent
from cimlayer.formats.disks.ntfs_records import Collation, index_root, padded, view_entry
from cimlayer.formats.sddl import descriptor_from_sddl

SYSTEM_FILE_ID = 0x100
ROOT_ID = 0x101

_COPY_OFFSET = 0x40000  # in $SDS each 256 KiB is followed by a copy of it
_HEADER_SIZE = 20

_SYSTEM_FILE = "O:BAG:SYD:(A;;0x12019f;;;SY)(A;;0x12019f;;;BA)"
# What Windows gives the root of a system drive: a scratch disk becomes a container's C:.
_ROOT = (
    "O:BAG:SYD:(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1200a9;;;BU)(A;CI;LC;;;BU)(A;CIIO;DC;;;BU)(A;OICIIO;GA;;;CO)"
)


def _hash(descriptor: bytes) -> int:
    total = 0
    for (word,) in struct.iter_unpack("<I", descriptor):
        total = (word + (total << 3 | total >> 29)) & 0xFFFFFFFF
    return total


@functools.cache
def _entries() -> tuple[tuple[bytes, bytes], ...]:
    """Return each descriptor with the header that stands before it in ``$SDS`` and is its index data."""
    entries = []
    offset = 0
    for security_id, text in ((SYSTEM_FILE_ID, _SYSTEM_FILE), (ROOT_ID, _ROOT)):
        descriptor = descriptor_from_sddl(text)
        size = _HEADER_SIZE + len(descriptor)
        entries.append((struct.pack("<IIQI", _hash(descriptor), security_id, offset, size), descriptor))
        offset += len(padded(bytes(size), 16))
    return tuple(entries)


@dataclass(frozen=True, slots=True)
class DescriptorStream:
    """The content of ``$SDS``: its size in bytes and what in it is not zero."""

    size: int
    extents: list[Extent]


def descriptor_stream() -> DescriptorStream:
    """Return ``$SDS`` with the descriptors of ``SYSTEM_FILE_ID`` and ``ROOT_ID``."""
    *others, last = (header + descriptor for header, descriptor in _entries())
    stream = b"".join(padded(entry, 16) for entry in others) + last
    return DescriptorStream(_COPY_OFFSET + len(stream), [(0, stream), (_COPY_OFFSET, stream)])


def hash_index() -> bytes:
    """Return the ``$SDH`` index root: from hash and security ID to the place in ``$SDS``."""
    headers = [header for header, _ in _entries()]
    headers.sort(key=lambda header: struct.unpack("<II", header[:8]))
    filler = "II".encode("utf-16-le")
    return index_root("$SDH", Collation.SECURITY_HASH, [view_entry(h[:8], h, filler) for h in headers])


def id_index() -> bytes:
    """Return the ``$SII`` index root: from security ID to the place in ``$SDS``."""
    return index_root("$SII", Collation.U32, [view_entry(header[4:8], header) for header, _ in _entries()])
