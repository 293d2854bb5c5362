"""A CIM reader for tests, written from the description of the format alone.

It shares no code with the package, takes nothing on trust and keeps whole files in memory: `ValueError` for
whatever the format does not allow, a plain dictionary otherwise.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import dataclass, field
from pathlib import Path

FILESYSTEM, REGION, OBJECT_ID = range(3)
METADATA, DATA, SMALL_DATA = range(3)
ALIGNMENT = {METADATA: 8, DATA: 4096, SMALL_DATA: 8}
FILE_DATA, LINK_TABLE, PE_IMAGE = range(3)

READ_ONLY, HIDDEN, SYSTEM, ARCHIVE, SPARSE = 1, 2, 4, 8, 0x10
ATTRIBUTE_OF_FLAG = {READ_ONLY: 0x1, HIDDEN: 0x2, SYSTEM: 0x4, ARCHIVE: 0x20, SPARSE: 0x200}
ATTRIBUTE_DIRECTORY = 0x10
ATTRIBUTE_REPARSE_POINT = 0x400

REGION_HEADER_SIZE = 40
OBJECT_ID_HEADER_SIZE = 48
OBJECT_ID_ENTRY_SIZE = 40
RECORD_SIZE = 96
FILES_PER_TABLE = 1024
UPCASE_SIZE = 0x20000


def check(condition: object, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class Header:
    """What the filesystem file says: GUIDs as in the names of the region files, counts of regions."""

    version: tuple[int, int]
    guid: uuid.UUID
    own_count: int
    parents: tuple[tuple[uuid.UUID, int], ...]
    filesystem_offset: int

    @property
    def region_names(self) -> list[str]:
        """Of all regions, in the order that region offsets count them: `<guid>_<n>`."""
        sets = [*self.parents, (self.guid, self.own_count)]
        return [f"{guid}_{n}" for guid, count in sets for n in range(count)]


@dataclass(frozen=True)
class Region:
    name: str
    type: int
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Stream:
    """A stream as stored; `data` reads it."""

    image: Image = field(repr=False, compare=False)
    offset: int
    size: int
    type: int
    sparse: bool

    @property
    def data(self) -> bytes:
        if self.sparse:
            return bytes(self.size)
        if self.size == 0:
            return b""
        if self.type == PE_IMAGE:
            return self.image.pe_image(self.offset, self.size)
        return self.image.at(self.offset, self.size, "stream")


@dataclass(frozen=True)
class Entry:
    """One name of a file. Times are FILETIMEs; `file_id` is equal for all names of a file."""

    path: str
    file_id: int
    parent_id: int
    attributes: int
    creation_time: int
    last_write_time: int
    change_time: int
    last_access_time: int
    sd: bytes
    sd_offset: int
    reparse: bytes
    reparse_tag: int
    eas: bytes
    stream: Stream
    alternate_streams: dict[str, Stream]

    @property
    def is_directory(self) -> bool:
        return self.stream.type == LINK_TABLE

    @property
    def size(self) -> int:
        return 0 if self.is_directory else self.stream.size

    @property
    def data(self) -> bytes:
        return b"" if self.is_directory else self.stream.data

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def streams(self) -> dict[str, bytes]:
        return {name: stream.data for name, stream in self.alternate_streams.items()}

    @property
    def ea_list(self) -> list[tuple[str, int, bytes]]:
        """(name, flags, value) of each extended attribute, in the order of the buffer."""
        return parse_eas(self.eas)


@dataclass(frozen=True)
class ObjectId:
    """An entry of an object ID file: `region` counts in the image's region list."""

    region: int
    region_type: int
    offset: int
    length: int
    digest: bytes
    data: bytes = field(repr=False)


def read_image(directory: Path | str, name: str) -> dict[str, Entry]:
    """All names of the image, the root as "", components parted by backslashes."""
    return Image(Path(directory), name).entries()


def read_header(directory: Path | str, name: str) -> Header:
    content = (Path(directory) / name).read_bytes()
    version = check_common_header(content, FILESYSTEM, name)
    check(len(content) >= 72, f"{name}: cut short")
    raw_guid, own_count, filesystem_offset, parent_count = struct.unpack_from("<16sH6xQ6xH", content, 32)
    check(content[50:56] == bytes(6) and content[64:70] == bytes(6), f"{name}: reserved bytes are set")
    size = 72 + 24 * parent_count
    check(len(content) == size, f"{name}: {len(content)} bytes, {size} expected")
    check(struct.unpack_from("<I", content, 8)[0] == size, f"{name}: wrong header length")
    parents = []
    for at in range(72, size, 24):
        parent_guid, count, reserved = struct.unpack_from("<16sH6s", content, at)
        check(reserved == bytes(6), f"{name}: reserved bytes of a parent are set")
        parents.append((uuid.UUID(bytes_le=parent_guid), count))
    guid = uuid.UUID(bytes_le=raw_guid)
    sets = [parent for parent, _ in parents]
    check(len({*sets, guid}) == len(sets) + 1, f"{name}: a region set is listed twice")
    return Header(version, guid, own_count, tuple(parents), filesystem_offset)


def object_ids(directory: Path | str, name: str) -> list[ObjectId]:
    """The entries of all object ID files that belong to the image's regions, its parents' included."""
    image = Image(Path(directory), name)
    found = []
    for region_index, region in enumerate(image.regions):
        file_name = f"objectid_{region.name}"
        content = (Path(directory) / file_name).read_bytes()
        check_common_header(content, OBJECT_ID, file_name)
        check(len(content) >= OBJECT_ID_HEADER_SIZE, f"{file_name}: cut short")
        size, index, kind, table, count = struct.unpack_from("<I20xHB5xII", content, 8)
        check(size == OBJECT_ID_HEADER_SIZE, f"{file_name}: wrong header length")
        check(content[35:40] == bytes(5), f"{file_name}: reserved bytes are set")
        check(index == int(region.name.rpartition("_")[2]), f"{file_name}: index {index}")
        check(kind == region.type, f"{file_name}: type {kind}, its region has {region.type}")
        check(OBJECT_ID_HEADER_SIZE <= table <= len(content), f"{file_name}: table offset {table}")
        check(table + OBJECT_ID_ENTRY_SIZE * count <= len(content), f"{file_name}: {count} entries")
        for at in range(table, table + OBJECT_ID_ENTRY_SIZE * count, OBJECT_ID_ENTRY_SIZE):
            length, digest, offset = struct.unpack_from("<Q24sQ", content, at)
            check(offset < 1 << 48, f"{file_name}: offset {offset:#x}")
            data = image.at(region_index << 48 | offset, length, f"{file_name} entry at {at}")
            found.append(ObjectId(region_index, region.type, offset, length, digest, data))
    return found


def check_common_header(content: bytes, file_type: int, name: str) -> tuple[int, int]:
    check(len(content) >= 32, f"{name}: cut short")
    magic, _, kind, major, minor = struct.unpack_from("<8sIB3xII", content)
    check(magic == b"cimfile0", f"{name}: magic {magic!r}")
    check(kind == file_type, f"{name}: file type {kind}")
    check(2 <= major <= 3, f"{name}: version {major}")
    check(content[13:16] == bytes(3) and content[24:32] == bytes(8), f"{name}: reserved bytes are set")
    return major, minor


def parse_eas(content: bytes) -> list[tuple[str, int, bytes]]:
    found = []
    at = 0
    while content:
        check(at + 8 <= len(content), f"EA at {at} is cut short")
        following, flags, name_size, value_size = struct.unpack_from("<IBBH", content, at)
        end = at + 8 + name_size + 1 + value_size
        check(end <= len(content), f"EA at {at} is cut short")
        name = content[at + 8 : at + 8 + name_size]
        check(name_size and content[at + 8 + name_size] == 0 and 0 not in name, f"EA at {at}: bad name")
        found.append((name.decode("ascii"), flags, content[end - value_size : end]))
        if following == 0:
            check(len(content) - end < 4, f"bytes after the last EA at {at}")
            break
        check(following % 4 == 0 and at + following >= end, f"EA at {at}: next entry offset {following}")
        at += following
    return found


class Image:
    """The regions of one image, and what region offsets point to."""

    def __init__(self, directory: Path, name: str) -> None:
        self.header = read_header(directory, name)
        names = self.header.region_names
        check(len(names) <= 0x10000, f"{len(names)} regions")
        self.regions = [self.read_region(directory, region_name) for region_name in names]
        upcase, self.directory_offset, self.table_count, self.root_id = struct.unpack(
            "<QQII", self.at(self.header.filesystem_offset, 24, "filesystem object")
        )
        self.upcase = struct.unpack("<65536H", self.at(upcase, UPCASE_SIZE, "upcase table"))
        self.tables = self.read_tables()

    @staticmethod
    def read_region(directory: Path, name: str) -> Region:
        content = (directory / f"region_{name}").read_bytes()
        check_common_header(content, REGION, name)
        check(len(content) >= REGION_HEADER_SIZE, f"{name}: cut short")
        size, index, kind = struct.unpack_from("<I20xHB", content, 8)
        check(size == REGION_HEADER_SIZE, f"{name}: wrong header length")
        check(index == int(name.rpartition("_")[2]), f"{name}: index {index}")
        check(kind in ALIGNMENT, f"{name}: region type {kind}")
        check(content[35:40] == bytes(5), f"{name}: reserved bytes are set")
        return Region(name, kind, content)

    def at(self, offset: int, size: int, what: str) -> bytes:
        index, start = offset >> 48, offset & (1 << 48) - 1
        check(index < len(self.regions), f"{what}: region {index} of {len(self.regions)}")
        region = self.regions[index]
        check(start >= REGION_HEADER_SIZE, f"{what}: offset {offset:#x} lies in a header")
        check(start % ALIGNMENT[region.type] == 0, f"{what}: offset {offset:#x} is not aligned")
        check(start + size <= len(region.content), f"{what}: {size} bytes at {offset:#x} leave the region")
        return region.content[start : start + size]

    def counted(self, offset: int, what: str) -> bytes:
        """Bytes behind their u16 length."""
        (size,) = struct.unpack("<H", self.at(offset, 2, what))
        return self.at(offset, 2 + size, what)[2:]

    def pe_image(self, offset: int, size: int) -> bytes:
        fixed = self.at(offset, 24, "PE image")
        data_offset, data_size, count = struct.unpack("<QQ4xH2x", fixed)
        data_size &= (1 << 63) - 1
        mappings = list(struct.iter_unpack("<II", self.at(offset, 24 + 8 * count, "PE image")[24:]))
        starts = [start for start, _ in mappings]
        check(starts == sorted(set(starts)), "PE mappings out of order")
        data = self.at(data_offset, data_size, "PE data")
        content = b""
        for (start, delta), following in zip([(0, 0), *mappings], [*starts, size], strict=True):
            end = min(following, size)
            if start < end:
                check(end + delta <= data_size, "PE mapping reaches beyond its data")
                content += data[start + delta : end + delta]
        return content

    def read_tables(self) -> list[tuple[int, int, bytes]]:
        """(valid files, record size, records) of each file table."""
        directory = self.at(self.directory_offset, 16 * self.table_count, "file table directory")
        tables = []
        for n, (offset, valid, size, reserved) in enumerate(struct.iter_unpack("<QHHI", directory)):
            check(valid <= FILES_PER_TABLE and size > 0, f"file table {n}: {valid} files of {size} bytes")
            check(reserved == 0, f"file table {n}: reserved bytes are set")
            tables.append((valid, size, self.at(offset, valid * size, f"file table {n}") if valid else b""))
        return tables

    def record(self, file_id: int) -> bytes:
        check(file_id != 0, "file ID 0")
        table, place = divmod(file_id - 1, FILES_PER_TABLE)
        check(table < len(self.tables), f"file {file_id}: no table")
        valid, size, records = self.tables[table]
        check(place < valid, f"file {file_id}: its table has {valid} files")
        return records[place * size : (place + 1) * size][:RECORD_SIZE].ljust(RECORD_SIZE, b"\0")

    def stream(self, raw: bytes, what: str) -> Stream:
        offset, packed = struct.unpack("<QQ", raw)
        size, kind, flags = packed & (1 << 48) - 1, packed >> 48 & 0xFF, packed >> 56
        check(kind in (FILE_DATA, LINK_TABLE, PE_IMAGE), f"{what}: stream type {kind}")
        check(flags in (0, 1), f"{what}: stream flags {flags:#x}")
        stores = size > 0 and not flags
        check(bool(offset) == stores, f"{what}: stream of {size} bytes, sparse {flags}, at {offset:#x}")
        if stores and kind != PE_IMAGE:
            self.at(offset, size, what)
        return Stream(self, offset, size, kind, bool(flags))

    def link_table(self, offset: int, value_size: int, what: str) -> tuple[int, dict[str, bytes]]:
        """The table's size, and its values by name."""
        size, count = struct.unpack("<II", self.at(offset, 8, what))
        table = self.at(offset, size, what)
        names_at = 8 + count * value_size
        check(names_at + 4 * count <= size, f"{what}: {count} links in {size} bytes")
        found = {}
        last: tuple[int, ...] = ()
        for i in range(count):
            (at,) = struct.unpack_from("<I", table, names_at + 4 * i)
            check(names_at + 4 * count <= at <= size - 2, f"{what}: name {i} at {at}")
            (length,) = struct.unpack_from("<H", table, at)
            check(1 <= length <= 255 and at + 2 + 2 * length <= size, f"{what}: name {i} has {length} units")
            units = struct.unpack_from(f"<{length}H", table, at + 2)
            key = tuple(self.upcase[unit] for unit in units)
            check(key > last, f"{what}: name {i} is out of order")
            last = key
            name = table[at + 2 : at + 2 + 2 * length].decode("utf-16-le", "surrogatepass")
            check(not set(name) & set("\\/\0"), f"{what}: name {name!r}")
            found[name] = table[8 + i * value_size : 8 + (i + 1) * value_size]
        return size, found

    def entry(self, path: str, file_id: int) -> Entry:
        record = self.record(file_id)
        flags, ea_size, tag, creation, write, change, access = struct.unpack_from("<HHI4Q", record)
        sd_at, ea_at, reparse_at, streams_at = struct.unpack_from("<4Q", record, 56)
        parent_id, base, reserved = struct.unpack_from("<IHH", record, 88)
        what = f"{path!r} (file {file_id})"
        check(flags & ~0x1F == 0, f"{what}: flags {flags:#x}")
        check(base == 0 and reserved == 0, f"{what}: base region {base}, reserved {reserved}")
        stream = self.stream(record[40:56], what)
        sd = self.counted(sd_at, f"{what} security descriptor")
        check(len(sd) >= 20 and sd[0] == 1 and sd[3] & 0x80, f"{what}: not a self-relative descriptor")
        check(bool(ea_at) == bool(ea_size), f"{what}: {ea_size} bytes of EAs at {ea_at:#x}")
        eas = self.at(ea_at, ea_size, f"{what} EAs") if ea_size else b""
        parse_eas(eas)
        reparse = self.counted(reparse_at, f"{what} reparse data") if reparse_at else b""
        check(bool(tag) == bool(reparse_at), f"{what}: reparse tag {tag:#x}, data at {reparse_at:#x}")
        if reparse:
            check(len(reparse) >= 8, f"{what}: reparse buffer of {len(reparse)} bytes")
            check(struct.unpack_from("<I", reparse)[0] == tag, f"{what}: two reparse tags")
        alternate = {}
        if streams_at:
            for name, raw in self.link_table(streams_at, 16, f"{what} streams")[1].items():
                alternate[name] = self.stream(raw, f"{what}:{name}")
                check(alternate[name].type != LINK_TABLE, f"{what}:{name} is a directory")
                check(":" not in name, f"{what}: stream name {name!r}")
        attributes = sum(attribute for flag, attribute in ATTRIBUTE_OF_FLAG.items() if flags & flag)
        attributes |= ATTRIBUTE_DIRECTORY if stream.type == LINK_TABLE else 0
        attributes |= ATTRIBUTE_REPARSE_POINT if reparse else 0
        times = (creation, write, change, access)
        descriptor = (sd, sd_at, reparse, tag, eas)
        return Entry(path, file_id, parent_id, attributes, *times, *descriptor, stream, alternate)

    def entries(self) -> dict[str, Entry]:
        root = self.entry("", self.root_id)
        check(root.is_directory, "the root is not a directory")
        found = {"": root}
        seen = {self.root_id}
        waiting = [root]
        while waiting:
            parent = waiting.pop()
            for name, file_id in self.children(parent):
                entry = self.entry(f"{parent.path}\\{name}" if parent.path else name, file_id)
                check(len(entry.path) <= 32767, f"{entry.path[:80]}...: path too long")
                found[entry.path] = entry
                if entry.is_directory:
                    check(file_id not in seen, f"{entry.path!r}: directory {file_id} has two names")
                    check(entry.parent_id == parent.file_id, f"{entry.path!r}: parent ID {entry.parent_id}")
                    seen.add(file_id)
                    waiting.append(entry)
        return found

    def children(self, directory: Entry) -> list[tuple[str, int]]:
        stream = directory.stream
        check(not stream.sparse, f"{directory.path!r}: sparse directory")
        if stream.size == 0:
            return []
        size, links = self.link_table(stream.offset, 4, f"{directory.path!r} links")
        check(size == stream.size, f"{directory.path!r}: table of {size} bytes in a stream of {stream.size}")
        return [(name, struct.unpack("<I", raw)[0]) for name, raw in links.items()]
