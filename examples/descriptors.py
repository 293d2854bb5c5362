"""Self-relative security descriptors for the files of made-up layers ([MS-DTYP] 2.4.6)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

SELF_RELATIVE = 0x8000
DACL_PRESENT = 0x0004
DACL_PROTECTED = 0x1000
ACCESS_ALLOWED = 0

FULL_ACCESS = 0x001F01FF
READ_AND_EXECUTE = 0x001200A9
INHERIT_TO_ALL = 0x03

HEADER_SIZE = 20


def sid(authority: int, *parts: int) -> bytes:
    """The binary form of `S-1-authority-part-part...`."""
    return struct.pack(f"<BB6s{len(parts)}I", 1, len(parts), authority.to_bytes(6, "big"), *parts)


SYSTEM = sid(5, 18)
ADMINISTRATORS = sid(5, 32, 544)
USERS = sid(5, 32, 545)
TRUSTED_INSTALLER = sid(5, 80, 956008885, 3418522649, 1831038044, 1853292631, 2271478464)


@dataclass(frozen=True, slots=True)
class Allow:
    """An access-allowed entry."""

    who: bytes
    rights: int
    flags: int = 0


def security_descriptor(owner: bytes, group: bytes, dacl: Sequence[Allow]) -> bytes:
    """Owner, group and a protected DACL, in the order in which Windows stores them."""
    entries = b"".join(
        struct.pack("<BBHI", ACCESS_ALLOWED, entry.flags, 8 + len(entry.who), entry.rights) + entry.who
        for entry in dacl
    )
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entries), len(dacl), 0) + entries
    owner_offset = HEADER_SIZE
    group_offset = owner_offset + len(owner)
    dacl_offset = group_offset + len(group)
    control = SELF_RELATIVE | DACL_PRESENT | DACL_PROTECTED
    no_sacl = 0
    header = struct.pack("<BBHIIII", 1, 0, control, owner_offset, group_offset, no_sacl, dacl_offset)
    return header + owner + group + acl
