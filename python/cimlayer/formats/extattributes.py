"""Extended attributes: a FILE_FULL_EA_INFORMATION list, taken apart.

Source: [MS-FSCC] 2.4.16; backup-stream.md, "EA buffer".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cimlayer.errors import FormatError

NEED_EA = 0x80

_HEADER = struct.Struct("<IBBH")


@dataclass(slots=True, frozen=True)
class ExtendedAttribute:
    """One attribute. ``flags`` is 0, or ``NEED_EA``: who does not know the attribute cannot use the file."""

    name: str
    flags: int
    value: bytes


def parse_extended_attributes(buffer: bytes) -> list[ExtendedAttribute]:
    """The attributes in their order; FormatError with the byte offset for a list that contradicts itself."""
    result: list[ExtendedAttribute] = []
    at = 0
    while buffer:
        if at + _HEADER.size > len(buffer):
            raise FormatError("an entry is cut short", "extended attributes", at)
        next_entry, flags, name_size, value_size = _HEADER.unpack_from(buffer, at)
        name_at = at + _HEADER.size
        value_at = name_at + name_size + 1
        end = value_at + value_size
        if end > len(buffer) or 0 < next_entry < end - at or next_entry > len(buffer) - at:
            raise FormatError("an entry reaches beyond its end", "extended attributes", at)
        name = buffer[name_at : name_at + name_size].decode("latin-1")
        result.append(ExtendedAttribute(name, flags, buffer[value_at:end]))
        if next_entry == 0:
            break
        at += next_entry
    return result
