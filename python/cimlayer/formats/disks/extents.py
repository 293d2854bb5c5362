"""A disk's content as the pieces that are not zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

SECTOR = 512
MIB = 1 << 20

Extent = tuple[int, bytes | bytearray]
"""Offset in bytes from the start of the disk or volume, and what stands there."""


def shifted(extents: Iterable[Extent], distance: int) -> Iterator[Extent]:
    """Yield ``extents`` moved by ``distance`` bytes: a volume's content at its place on the disk."""
    for offset, data in extents:
        yield offset + distance, data


def split(extents: Iterable[Extent], unit: int) -> Iterator[tuple[int, int, memoryview]]:
    """Cut ``extents`` at multiples of ``unit`` bytes into (unit number, offset in the unit, data)."""
    for offset, data in extents:
        number, start = divmod(offset, unit)
        rest = memoryview(data)
        while rest:
            yield number, start, rest[: unit - start]
            rest = rest[unit - start :]
            number, start = number + 1, 0
