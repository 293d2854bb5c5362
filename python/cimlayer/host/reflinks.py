"""Disk blocks that two files share, on Linux file systems with reflinks such as XFS and Btrfs.

Sharing is ioctl_fideduperange(2); what is shared is FIEMAP's answer (Linux, Documentation/filesystems/fiemap.rst).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

if sys.platform == "linux":
    import fcntl

BLOCK = 4096  # bytes: offsets are multiples of the block size, which is rarely another

_FIDEDUPERANGE = 0xC0189436
_RANGE = struct.Struct("=QQHHIqQQiI")  # file_dedupe_range with one file_dedupe_range_info
_MOST = 1 << 24  # bytes that any file system takes in one call

_FIEMAP = 0xC020660B
_MAP = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
_EXTENTS = 256  # asked for at once
_LAST, _SHARED = 0x1, 0x2000


def share_blocks(source: int, source_offset: int, target: int, target_offset: int, size: int) -> int:
    """Let a range of ``target`` lie in the blocks of ``source``, both open files; returns for how many bytes it does.

    It ends where the bytes differ. The kernel compares them with both files locked, so what they hold stays the same
    whoever writes to them. OSError: not on this file system.
    """
    if sys.platform != "linux":
        return 0
    shared = 0
    while shared < size:
        count = min(size - shared, _MOST)
        fields = (source_offset + shared, count, 1, 0, 0, target, target_offset + shared, 0, 0, 0)
        answer = bytearray(_RANGE.pack(*fields))
        fcntl.ioctl(source, _FIDEDUPERANGE, answer)
        done, status = _RANGE.unpack(answer)[7:9]
        if status < 0:
            raise OSError(-status, "blocks cannot be shared")
        shared += done
        if status > 0 or done == 0:
            break
    return shared


def shared_ranges(file: int) -> Iterator[tuple[int, int]]:
    """The offset and length of what an open file shares with others, in order; OSError where nobody knows."""
    if sys.platform != "linux":
        return
    start, flags = 0, 0
    while not flags & _LAST:
        answer = bytearray(_MAP.pack(start, (1 << 63) - 1 - start, 0, 0, _EXTENTS, 0))
        answer += bytes(_EXTENTS * _EXTENT.size)
        fcntl.ioctl(file, _FIEMAP, answer)
        count = _MAP.unpack_from(answer)[3]
        if count == 0:
            return
        for number in range(count):
            offset, _, length, _, _, flags, *_ = _EXTENT.unpack_from(answer, _MAP.size + number * _EXTENT.size)
            if flags & _SHARED:
                yield offset, length
        start = offset + length
