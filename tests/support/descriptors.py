"""An independent reading of self-relative security descriptors (MS-DTYP 2.4.6)."""

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Acl:
    revision: int
    aces: tuple[bytes, ...]


@dataclass(frozen=True)
class Parts:
    control: int
    owner: bytes | None
    group: bytes | None
    sacl: Acl | None
    dacl: Acl | None


def parts_of(data: bytes) -> Parts:
    """An independent reading of a descriptor's structures, without regard to where they lie."""
    revision, control, *offsets = struct.unpack_from("<BxH4I", data)
    assert revision == 1

    def sid(at: int) -> bytes | None:
        return data[at : at + 8 + 4 * data[at + 1]] if at else None

    def acl(at: int) -> Acl | None:
        if not at:
            return None
        acl_revision, size, count = struct.unpack_from("<BxHHxx", data, at)
        place = at + 8
        aces = []
        for _ in range(count):
            (length,) = struct.unpack_from("<H", data, place + 2)
            aces.append(data[place : place + length])
            place += length
        assert place <= at + size <= len(data)
        return Acl(acl_revision, tuple(aces))

    return Parts(control, sid(offsets[0]), sid(offsets[1]), acl(offsets[2]), acl(offsets[3]))
