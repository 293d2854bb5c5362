"""Boot stores: hives of any content, and stores whose elements hold anything."""

from __future__ import annotations

import struct

from cimfs_ext.regf import Hive
from cimlayer.errors import FormatError, KeyNotFoundError
from cimlayer.formats.bcd import BOOT_VOLUME, BcdStore, describe, patch_for_cim
from cimlayer.formats.bcd.store import BOOT_MANAGER, REG_BINARY
from cimlayer.formats.disks import DiskIdentity
from support.utilityvms import LOADER, small_store

OBJECTS = (BOOT_MANAGER, LOADER)
DISK = DiskIdentity(LOADER, BOOT_VOLUME)
RECORD = struct.Struct("<BIH")
BASE_BLOCK, CHECKSUM_AT = 512, 508


def seeds() -> dict[str, bytes]:
    """A zero and a hive; or a one and records of an object's number, an element, a size, and the element's data."""
    texts = f"{{{LOADER}}}".encode("utf-16-le")
    elements = [
        (1, 0x11000001, bytes(72)),
        (1, 0x12000004, "text\0".encode("utf-16-le")),
        (0, 0x24000001, texts + b"\0\0" + texts + b"\0\0\0\0"),
        (0, 0x25000004, b"\1"),
        (1, 0x26000010, b"\1"),
        (1, 0x1700000A, bytes(20)),
        (1, 0x250000C2, b"\1\0\0\0"),
        (1, 0x1F000001, b"?"),
    ]
    records = b"".join(RECORD.pack(at, element, len(data)) + data for at, element, data in elements)
    return {"hive": b"\0" + small_store().to_bytes(), "elements": b"\1" + records}


def run(data: bytes) -> None:
    """Show the store, read and set every element, patch the store, and read what was written."""
    try:
        store = _store_of_records(data[1:]) if data[:1] == b"\1" else BcdStore.open(_corrected(data[1:]))
        _look_at(store)
        patch_for_cim(store, r"cim-layers\x.cim", DISK)
        again = BcdStore.open(store.to_bytes())
        assert list(again) == list(store)
        _look_at(again)
    except (FormatError, KeyNotFoundError) as error:
        assert error.reason


def _store_of_records(records: bytes) -> BcdStore:
    hive = Hive.open(small_store().to_bytes())
    while len(records) >= RECORD.size:
        at, element, size = RECORD.unpack_from(records)
        data = records[RECORD.size : RECORD.size + size]
        path = f"Objects\\{{{OBJECTS[at % len(OBJECTS)]}}}\\Elements\\{element:08x}"
        hive.set_value(path, "Element", REG_BINARY, data, 0)
        records = records[RECORD.size + size :]
    return BcdStore(hive)


def _look_at(store: BcdStore) -> None:
    for identifier in store:
        for element in store.elements(identifier):
            value = store.get(identifier, element)
            if value is None:
                continue
            try:
                store.set(identifier, element, value)
            except TypeError:  # a format that is not known: its bytes were given as text
                assert isinstance(value, str)
            else:
                assert store.get(identifier, element) == value
    describe(store)


def _corrected(hive: bytes) -> bytes:
    """With the checksum that its base block ought to have."""
    if len(hive) < BASE_BLOCK:
        return hive
    checksum = 0
    for (word,) in struct.iter_unpack("<I", hive[:CHECKSUM_AT]):
        checksum ^= word
    checksum = {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(checksum, checksum)
    return hive[:CHECKSUM_AT] + struct.pack("<I", checksum) + hive[BASE_BLOCK:]
