"""The upper-case table that NTFS stores in ``$UpCase``."""

from __future__ import annotations

import functools
import struct


@functools.cache
def upcase_table() -> bytes:
    """Return 65,536 little-endian UTF-16 code units: the upper case of each code unit."""
    upper = (chr(unit).upper() for unit in range(0x10000))
    return struct.pack(
        "<65536H",
        *(ord(c) if len(c) == 1 and ord(c) < 0x10000 else unit for unit, c in enumerate(upper)),
    )
