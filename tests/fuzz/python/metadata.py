"""Buffers of extended attributes and reparse points, taken apart for people."""

from __future__ import annotations

import struct

from cimlayer.errors import FormatError
from cimlayer.formats.extattributes import parse_extended_attributes
from cimlayer.formats.reparse import parse_reparse_data
from support.image_layers import MOUNT_POINT, SYMLINK, link_data


def seeds() -> dict[str, bytes]:
    """A byte whose lowest bit says which kind, then the buffer."""
    first = struct.pack("<IBBH", 16, 0, 2, 3) + b"AB\0xyz"
    return {
        "attributes": b"\0" + first.ljust(16, b"\0") + struct.pack("<IBBH", 0, 0x80, 1, 0) + b"C\0",
        "link": b"\1" + link_data("a\\b"),
        "mount": b"\1" + link_data("\\??\\C:\\x", tag=MOUNT_POINT),
        "linux": b"\1" + struct.pack("<IHH", 0xA000001D, 6, 0) + b"\2\0\0\0/x",
        "foreign": b"\1" + struct.pack("<IHH", 0x123, 4, 0) + bytes(16) + b"data",
        "half": b"\1" + link_data("\ud800", tag=SYMLINK),
    }


def run(data: bytes) -> None:
    """Take the buffer apart, and see that its parts are in it."""
    buffer = data[1:]
    try:
        if data[:1] == b"\1":
            point = parse_reparse_data(buffer)
            assert point.data in buffer
            assert point.tag_name
        else:
            attributes = parse_extended_attributes(buffer)
            assert sum(9 + len(each.name) + len(each.value) for each in attributes) <= len(buffer)
    except FormatError as error:
        assert error.reason
        assert 0 <= error.offset <= len(data)
