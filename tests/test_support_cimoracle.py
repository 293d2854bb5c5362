"""The image reader of the tests, on an image that is written here by hand."""

import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from support import cimoracle
from support.platforms import same_everywhere

pytestmark = same_everywhere

GUID = uuid.UUID("0d2e7e8a-1f6b-4f5c-9a1b-0123456789ab")
LARGE = bytes(range(250)) * 20
NULL_DACL = bytes.fromhex("01000480") + bytes(16)
EA = struct.pack("<IBBH", 0, 0, 1, 2) + b"A\0xy"
REPARSE = struct.pack("<IHH", 0xA000000C, 4, 0) + b"link"


def common(size: int, kind: int) -> bytes:
    return struct.pack("<8sIB3xII8x", b"cimfile0", size, kind, 2, 0)


def stream(offset: int, size: int, kind: int = 0, sparse: int = 0) -> bytes:
    return struct.pack("<QQ", offset, size | kind << 48 | sparse << 56)


def link_table(links: list[tuple[str, bytes]], value_size: int) -> bytes:
    names_at = 8 + len(links) * (value_size + 4)
    offsets, names = b"", b""
    for name, _ in links:
        raw = name.encode("utf-16-le")
        offsets += struct.pack("<I", names_at + len(names))
        names += struct.pack("<H", len(raw) // 2) + raw
    body = b"".join(value for _, value in links) + offsets + names
    return struct.pack("<II", 8 + len(body), len(links)) + body


class Writer:
    """Three regions, and objects appended to them."""

    def __init__(self) -> None:
        header = common(40, cimoracle.REGION)
        self.regions = [bytearray(header + struct.pack("<HB5x", n, n)) for n in range(3)]

    def add(self, data: bytes, region: int = 0) -> int:
        content = self.regions[region]
        content += bytes(-len(content) % cimoracle.ALIGNMENT[region])
        offset = region << 48 | len(content)
        content += data
        return offset

    def save(self, directory: Path, filesystem: int) -> None:
        for n, content in enumerate(self.regions):
            (directory / f"region_{GUID}_{n}").write_bytes(content)
        own = common(72, cimoracle.FILESYSTEM) + GUID.bytes_le + struct.pack("<H6xQ8x", 3, filesystem)
        (directory / "a.cim").write_bytes(own)


def record(
    content: bytes,
    sd: int,
    *,
    parent: int = 1,
    flags: int = 0,
    ea: int = 0,
    reparse: int = 0,
    streams: int = 0,
) -> bytes:
    tag = 0xA000000C if reparse else 0
    head = struct.pack("<HHI4Q", flags, len(EA) if ea else 0, tag, 1, 2, 3, 4)
    return head + content + struct.pack("<4QIHH", sd, ea, reparse, streams, parent, 0, 0)


def write_image(directory: Path) -> dict[str, int]:
    """Root with `a` (also `B`), `D\\link`, `sparse`, `Z`; where the objects went."""
    writer = Writer()
    upcase = [unit - 32 if 0x61 <= unit <= 0x7A else unit for unit in range(65536)]
    table = writer.add(struct.pack("<65536H", *upcase))
    sd = writer.add(struct.pack("<H", len(NULL_DACL)) + NULL_DACL)
    small, large = writer.add(b"small", 2), writer.add(LARGE, 1)
    image = writer.add(struct.pack("<QQIHHIIII", large, 5000 | 1 << 63, 0, 2, 0, 10, 100, 20, 0))
    zone = writer.add(link_table([("zone", stream(small, 5))], 16))
    reparse = writer.add(struct.pack("<H", len(REPARSE)) + REPARSE)
    links = [("a", 2), ("B", 2), ("D", 3), ("sparse", 5), ("Z", 6)]
    root = link_table([(name, struct.pack("<I", number)) for name, number in links], 4)
    below = link_table([("link", struct.pack("<I", 4))], 4)
    root_at, below_at = writer.add(root), writer.add(below)
    records = [
        record(stream(root_at, len(root), 1), sd),
        record(stream(large, 5000), sd, flags=3, ea=writer.add(EA), streams=zone),
        record(stream(below_at, len(below), 1), sd),
        record(stream(0, 0), sd, parent=3, reparse=reparse),
        record(stream(0, 1 << 30, 0, 1), sd, flags=0x10),
        record(stream(image, 30, 2), sd),
    ]
    files = writer.add(b"".join(records))
    tables = writer.add(struct.pack("<QHHI", files, len(records), 96, 0))
    filesystem = writer.add(struct.pack("<QQII", table, tables, 1, 1))
    writer.save(directory, filesystem)
    return {"root": root_at, "files": files, "tables": tables, "filesystem": filesystem, "zone": zone}


def write_object_ids(directory: Path) -> None:
    for n, entries in enumerate([[], [(5000, b"d" * 24, 4096)], []]):
        head = common(48, cimoracle.OBJECT_ID) + struct.pack("<HB5xII", n, n, 48, len(entries))
        body = b"".join(struct.pack("<Q24sQ", *entry) for entry in entries)
        (directory / f"objectid_{GUID}_{n}").write_bytes(head + body)


def test_every_field_is_read(tmp_path: Path) -> None:
    write_image(tmp_path)
    entries = cimoracle.read_image(tmp_path, "a.cim")
    assert set(entries) == {"", "a", "B", "D", "D\\link", "sparse", "Z"}
    file = entries["a"]
    assert (file.data, file.size, file.attributes, file.is_directory) == (LARGE, 5000, 3, False)
    assert (file.creation_time, file.last_write_time, file.change_time, file.last_access_time) == (1, 2, 3, 4)
    assert (file.sd, file.eas, file.ea_list) == (NULL_DACL, EA, [("A", 0, b"xy")])
    assert file.streams == {"zone": b"small"}
    assert entries["B"].file_id == file.file_id
    assert (entries["D"].is_directory, entries["D"].attributes) == (True, 0x10)
    assert (entries["D\\link"].reparse, entries["D\\link"].attributes) == (REPARSE, 0x400)
    assert (entries["sparse"].size, entries["sparse"].stream.sparse) == (1 << 30, True)
    assert entries["Z"].data == LARGE[:10] + LARGE[110:120] + LARGE[20:30]
    assert cimoracle.read_header(tmp_path, "a.cim").guid == GUID


def test_object_ids_are_read(tmp_path: Path) -> None:
    write_image(tmp_path)
    write_object_ids(tmp_path)
    (found,) = cimoracle.object_ids(tmp_path, "a.cim")
    assert (found.region, found.region_type, found.offset, found.digest) == (1, 1, 4096, b"d" * 24)
    assert found.data == LARGE


Damage = Callable[[Path, dict[str, int]], None]


def patch(name: str, at: Callable[[dict[str, int]], int], data: bytes) -> Damage:
    def apply(directory: Path, places: dict[str, int]) -> None:
        path = directory / name
        content = bytearray(path.read_bytes())
        start = at(places)
        content[start : start + len(data)] = data
        path.write_bytes(content)

    return apply


METADATA = f"region_{GUID}_0"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (patch("a.cim", lambda _: 0, b"X"), "magic"),
        (patch("a.cim", lambda _: 16, b"\4"), "version"),
        (patch("a.cim", lambda _: 70, b"\1"), "bytes"),
        (patch("a.cim", lambda _: 62, b"\3"), "region 3 of 3"),
        (patch(METADATA, lambda _: 32, b"\1"), "index"),
        (patch(METADATA, lambda p: p["filesystem"] + 20, b"\0"), "file ID 0"),
        (patch(METADATA, lambda p: p["filesystem"] + 20, b"\2"), "root is not a directory"),
        (patch(METADATA, lambda p: p["tables"] + 8, b"\1\4"), "1025 files"),
        (patch(METADATA, lambda p: p["tables"] + 8, b"\5\0"), "has 5 files"),
        (patch(METADATA, lambda p: p["root"], b"\xff\xff"), "leave the region"),
        (patch(METADATA, lambda p: p["root"] + 8 + 2 * 4, b"\1"), "two names"),
        (patch(METADATA, lambda p: p["root"] + 8 + 5 * 8 + 2, b"z"), "out of order"),
        (patch(METADATA, lambda p: p["root"] + 8 + 5 * 8, b"\0"), "0 units"),
        (patch(METADATA, lambda p: p["files"] + 96 + 40, bytes(8)), "stream of 5000 bytes"),
        (patch(METADATA, lambda p: p["files"] + 96 + 40, b"\1"), "not aligned"),
        (patch(METADATA, lambda p: p["files"] + 96, b"\xff"), "flags"),
        (patch(METADATA, lambda p: p["files"] + 96 + 56, bytes(8)), "lies in a header"),
        (patch(METADATA, lambda p: p["files"] + 96 + 2, b"\1"), "EA at 0 is cut short"),
        (patch(METADATA, lambda p: p["files"] + 2 * 96 + 88, b"\3"), "parent ID 3"),
        (patch(METADATA, lambda p: p["zone"] + 8 + 14, b"\1"), "is a directory"),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: Damage, message: str) -> None:
    damage(tmp_path, write_image(tmp_path))
    with pytest.raises(ValueError, match=message):
        cimoracle.read_image(tmp_path, "a.cim")
