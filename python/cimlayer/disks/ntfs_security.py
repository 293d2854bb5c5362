"""The security descriptors of a new volume, and the ``$Secure`` stream and indexes that files share."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cimlayer.disks.extents import Extent
from cimlayer.disks.ntfs_records import Collation, index_root, padded, view_entry

SYSTEM_FILE_ID = 0x100
ROOT_ID = 0x101

_COPY_OFFSET = 0x40000  # in $SDS each 256 KiB is followed by a copy of it
_HEADER_SIZE = 20

_Ace = tuple[int, int, bytes]  # inheritance flags, access mask, SID


def _sid(authority: int, *parts: int) -> bytes:
    return struct.pack(f"<BB6s{len(parts)}I", 1, len(parts), authority.to_bytes(6, "big"), *parts)


_CREATOR_OWNER = _sid(3, 0)
_LOCAL_SYSTEM = _sid(5, 18)
_ADMINISTRATORS = _sid(5, 32, 544)
_USERS = _sid(5, 32, 545)

_OBJECT_INHERIT, _CONTAINER_INHERIT, _INHERIT_ONLY = 1, 2, 8
_ALL_BELOW = _OBJECT_INHERIT | _CONTAINER_INHERIT
_READ_WRITE, _READ_EXECUTE, _FULL, _GENERIC_ALL = 0x12019F, 0x1200A9, 0x1F01FF, 0x10000000
_ADD_FILE, _ADD_SUBDIRECTORY = 2, 4

_SYSTEM_FILE_ACES: tuple[_Ace, ...] = (
    (0, _READ_WRITE, _LOCAL_SYSTEM),
    (0, _READ_WRITE, _ADMINISTRATORS),
)
# What Windows gives the root of a system drive: a scratch disk becomes a container's C:.
_ROOT_ACES: tuple[_Ace, ...] = (
    (_ALL_BELOW, _FULL, _LOCAL_SYSTEM),
    (_ALL_BELOW, _FULL, _ADMINISTRATORS),
    (_ALL_BELOW, _READ_EXECUTE, _USERS),
    (_CONTAINER_INHERIT, _ADD_SUBDIRECTORY, _USERS),
    (_CONTAINER_INHERIT | _INHERIT_ONLY, _ADD_FILE, _USERS),
    (_ALL_BELOW | _INHERIT_ONLY, _GENERIC_ALL, _CREATOR_OWNER),
)


def _descriptor(aces: tuple[_Ace, ...]) -> bytes:
    """Return a self-relative descriptor owned by the administrators, with these allowing entries."""
    body = b"".join(struct.pack("<BBHI", 0, flags, 8 + len(sid), mask) + sid for flags, mask, sid in aces)
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(body), len(aces), 0) + body
    owner = 20 + len(acl)
    group = owner + len(_ADMINISTRATORS)
    return struct.pack("<BBHIIII", 1, 0, 0x8004, owner, group, 0, 20) + acl + _ADMINISTRATORS + _LOCAL_SYSTEM


def _hash(descriptor: bytes) -> int:
    total = 0
    for (word,) in struct.iter_unpack("<I", descriptor):
        total = (word + (total << 3 | total >> 29)) & 0xFFFFFFFF
    return total


def _entries() -> list[tuple[bytes, bytes]]:
    """Return each descriptor with the header that stands before it in ``$SDS`` and is its index data."""
    entries = []
    offset = 0
    for security_id, aces in ((SYSTEM_FILE_ID, _SYSTEM_FILE_ACES), (ROOT_ID, _ROOT_ACES)):
        descriptor = _descriptor(aces)
        size = _HEADER_SIZE + len(descriptor)
        entries.append((struct.pack("<IIQI", _hash(descriptor), security_id, offset, size), descriptor))
        offset += len(padded(bytes(size), 16))
    return entries


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
