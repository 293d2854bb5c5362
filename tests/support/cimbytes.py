"""Images built byte by byte (docs/format.md): those of other writers, and those of none."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REGION_SET = uuid.UUID("0d2e7e8a-1f6b-4f5c-9a1b-0123456789ab")
DATA, LINKS, PE_IMAGE = range(3)
SPARSE = 1 << 56
_UPPER = [ord(c) if len(c := chr(i).upper()) == 1 and ord(c) < 65536 else i for i in range(65536)]
UPCASE = struct.pack("<65536H", *_UPPER)


def upcased(name: str) -> tuple[int, ...]:
    """Equal for names that are the same in a directory, and in their order."""
    units = name.encode("utf-16-le", "surrogatepass")
    return tuple(_UPPER[unit] for (unit,) in struct.iter_unpack("<H", units))


def common_header(file_type: int, length: int, version: int = 2) -> bytes:
    return struct.pack("<8sIB3xII8x", b"cimfile0", length, file_type, version, 0)


def stream(offset: int, length: int, kind: int = DATA, sparse: bool = False) -> bytes:
    return struct.pack("<QQ", offset, length | kind << 48 | (SPARSE if sparse else 0))


def link_table(entries: Sequence[tuple[str, bytes]]) -> bytes:
    """A table of these entries as they come: sorting is the caller's."""
    values = b"".join(value for _, value in entries)
    at = 8 + len(values) + 4 * len(entries)
    offsets, names = [], b""
    for name, _ in entries:
        units = name.encode("utf-16-le", "surrogatepass")
        offsets.append(struct.pack("<I", at + len(names)))
        names += struct.pack("<H", len(units) // 2) + units
    return struct.pack("<II", at + len(names), len(entries)) + values + b"".join(offsets) + names


@dataclass
class Builder:
    """Objects are put one by one, `save` writes the files. `places`: (region, offset) by name."""

    version: int = 2
    record_size: int = 96
    regions: list[bytearray] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        header = [common_header(1, 40, self.version) + struct.pack("<HB5x", i, i) for i in range(3)]
        self.regions = [bytearray(data) for data in header]

    def put(self, data: bytes, region: int = 0, place: str = "") -> int:
        content = self.regions[region]
        content += bytes(-len(content) % (4096 if region == 1 else 8))
        at = len(content)
        content += data
        if place:
            self.places[place] = (region, at)
        return region << 48 | at

    def counted(self, data: bytes, place: str = "") -> int:
        return self.put(struct.pack("<H", len(data)) + data, 0, place)

    def data(self, content: bytes) -> bytes:
        return stream(self.put(content, 2 if len(content) < 4096 else 1), len(content)) if content else bytes(16)

    def pe_image(self, content: bytes, length: int, mappings: Sequence[tuple[int, int]], place: str = "pe") -> bytes:
        header = struct.pack("<QQIHH", self.put(content, 1), len(content) | 1 << 63, length, len(mappings), 0)
        table = b"".join(struct.pack("<II", *mapping) for mapping in mappings)
        return stream(self.put(header + table, 0, place), length, PE_IMAGE)

    def add(
        self,
        default_stream: bytes = bytes(16),
        *,
        flags: int = 0,
        tag: int = 0,
        parent: int = 1,
        security: int = 0,
        ea: int = 0,
        ea_size: int = 0,
        reparse: int = 0,
        streams: int = 0,
        written: int = 2,
    ) -> int:
        head = struct.pack("<HHIQq2Q", flags, ea_size, tag, 1, written, 3, 4)
        tail = struct.pack("<4QIHH", security, ea, reparse, streams, parent, 0, 0)
        self.records.append(head + default_stream + tail)
        return len(self.records)

    def directory(self, children: Mapping[str, int], place: str = "", **fields: int) -> int:
        entries = [(name, struct.pack("<I", children[name])) for name in sorted(children, key=upcased)]
        table = link_table(entries)
        where = stream(self.put(table, 0, place), len(table), LINKS) if entries else stream(0, 0, LINKS)
        return self.add(where, **fields)

    def save(self, path: Path, root: int) -> Path:
        upcase = self.put(UPCASE, 0, "upcase")
        tables = b""
        for first in range(0, len(self.records), 1024):
            records = self.records[first : first + 1024]
            data = b"".join(record[: self.record_size].ljust(self.record_size, b"?") for record in records)
            offset = self.put(data, 0, f"table {first // 1024}")
            tables += struct.pack("<QHHI", offset, len(records), self.record_size, 0)
        directory = self.put(tables, 0, "directory")
        filesystem = self.put(struct.pack("<QQII", upcase, directory, len(tables) // 16, root), 0, "filesystem")
        header = common_header(0, 72, self.version) + struct.pack("<16sH6xQ8x", REGION_SET.bytes_le, 3, filesystem)
        path.write_bytes(header)
        for i, content in enumerate(self.regions):
            region_file(path, i).write_bytes(content)
            ids = common_header(2, 48, self.version) + struct.pack("<HB5xII", i, i, 48, 0)
            path.with_name(f"objectid_{REGION_SET}_{i}").write_bytes(ids)
        return path

    def patch(self, path: Path, place: str, at: int, data: bytes) -> None:
        """Overwrite bytes of a saved image, counted from the beginning of what was put under that name."""
        region, start = self.places[place]
        patch(region_file(path, region), start + at, data)


def region_file(path: Path, index: int) -> Path:
    return path.with_name(f"region_{REGION_SET}_{index}")


def patch(path: Path, at: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)
