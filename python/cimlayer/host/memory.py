"""Memory for the bytes of files."""

from __future__ import annotations

import mmap
import sys


def whole_pages(size: int) -> mmap.mmap:
    """A buffer that begins with a page; it takes memory as it is filled.

    AMD's Zen 3 takes three times as long to read what begins with a page into memory that lies up to 63 bytes behind
    the beginning of one, as that of every large bytearray does.
    """
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
