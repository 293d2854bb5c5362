"""The smallest registry hive that readers accept: a root key, its descriptor, nothing else.

Layers for host-process containers carry five such hives, and so do those made here (docs/format.md, "Hives").
"""

import struct
from functools import reduce
from operator import xor

from examples.descriptors import ADMINISTRATORS, SYSTEM, Allow, security_descriptor

BASE_BLOCK_SIZE = 4096
BIN_SIZE = 4096
BIN_HEADER_SIZE = 32
ROOT_CELL = BIN_HEADER_SIZE
SECURITY_CELL = ROOT_CELL + 88
NONE = 0xFFFFFFFF

KEY_IS_ROOT = 0x04
KEY_MAY_NOT_BE_DELETED = 0x08
KEY_NAME_IS_LATIN1 = 0x20

KEY_ALL_ACCESS = 0x000F003F
CONTAINER_INHERIT = 0x02


def minimal_hive(name: str, last_written: int = 0) -> bytes:
    """A clean hive of 8,192 bytes; `name` has up to 31 characters, `last_written` is a FILETIME."""
    used = _cell(_root_key(last_written)) + _cell(_security())
    free = BIN_SIZE - BIN_HEADER_SIZE - len(used)
    bin_header = struct.pack("<4sIIQQI", b"hbin", 0, BIN_SIZE, 0, last_written, 0)
    return _base_block(name, last_written) + bin_header + used + struct.pack("<i", free).ljust(free, b"\0")


def _base_block(name: str, last_written: int) -> bytes:
    encoded_name = name.encode("utf-16-le")
    if len(encoded_name) > 62:
        raise ValueError(f"hive name {name!r} is longer than 31 characters")
    sequence, major, minor, primary_file, memory_format, clustering = 1, 1, 5, 0, 1, 1
    fields = struct.pack(
        "<4sIIQIIIIIII64s",
        b"regf", sequence, sequence, last_written, major, minor, primary_file, memory_format,
        ROOT_CELL, BIN_SIZE, clustering, encoded_name,
    ).ljust(508, b"\0")  # fmt: skip
    checksum = reduce(xor, struct.unpack("<127I", fields))
    checksum = {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(checksum, checksum)
    return (fields + struct.pack("<I", checksum)).ljust(BASE_BLOCK_SIZE, b"\0")


def _root_key(last_written: int) -> bytes:
    name = b"ROOT"
    subkeys = (0, 0, NONE, NONE)
    values = (0, NONE)
    no_class, largest = NONE, (0, 0, 0, 0)
    return struct.pack(
        "<2sHQII4I2III4IIHH4s",
        b"nk", KEY_IS_ROOT | KEY_MAY_NOT_BE_DELETED | KEY_NAME_IS_LATIN1, last_written, 0, NONE,
        *subkeys, *values, SECURITY_CELL, no_class, *largest, 0, len(name), 0, name,
    )  # fmt: skip


def _security() -> bytes:
    full_access = [Allow(who, KEY_ALL_ACCESS, CONTAINER_INHERIT) for who in (SYSTEM, ADMINISTRATORS)]
    descriptor = security_descriptor(ADMINISTRATORS, SYSTEM, full_access)
    following = previous = SECURITY_CELL
    references = 1
    header = struct.pack("<2sHIIII", b"sk", 0, following, previous, references, len(descriptor))
    return header + descriptor


def _cell(content: bytes) -> bytes:
    size = (4 + len(content) + 7) // 8 * 8
    return (struct.pack("<i", -size) + content).ljust(size, b"\0")
