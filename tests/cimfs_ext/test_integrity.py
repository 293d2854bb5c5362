"""Flip any byte of an image: the change is found, or stands on the list of what the format gives no way to find."""

from __future__ import annotations

import os
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from cimlayer.errors import ImageError
from support import cimoracle
from support.images import DIRECTORY, METADATA, TIME, add, assert_sound
from support.platforms import same_everywhere

pytestmark = same_everywhere

# CI looks at every byte of headers and object ID files, and at a sample of the regions; 1 is every byte of all files.
STRIDE = int(os.environ.get("CIMLAYER_FLIP_STRIDE", "0"))
SAMPLE = 61
MASKS = (0x01, 0x10, 0x80, 0xFF)
UPCASE_SIZE = 131_072

# What an image can lose without anybody who reads it or makes a fork of it being able to tell.
RESERVED = "reserved in the format, or a minor version"
VERSION = "of the major version: 2 and 3 are read alike, and may stand in one image"
PADDING = "between objects"
UNUSED_OBJECT = "of an object that the image does not refer to"
UNUSED_ID = "of the content ID of an object that the image does not refer to"
# What a report counts as not judged: the object itself is whole, and there is no ID of ours to say so.
ID_AS_OF_A_STRANGER = "of a content ID that is then another writer's, or that of another place"
ID_TABLE = "of the place and the length of a table of content IDs: some IDs are lost, perhaps of unused objects alone"
SILENT = {RESERVED, VERSION, PADDING, UNUSED_OBJECT, UNUSED_ID}


@dataclass
class Fields:
    """Ranges of bytes of one file that verify need not judge, with the reason."""

    ranges: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, start: int, size: int, reason: str) -> None:
        self.ranges.append((start, start + size, reason))

    def reason(self, offset: int) -> str | None:
        return next((reason for start, end, reason in self.ranges if start <= offset < end), None)


def common_header() -> Fields:
    fields = Fields()
    fields.add(13, 3, RESERVED)
    fields.add(16, 1, VERSION)
    fields.add(20, 4, RESERVED)
    fields.add(24, 8, RESERVED)
    return fields


def fields_of_cim(content: bytes) -> Fields:
    fields = common_header()
    fields.add(50, 6, RESERVED)
    fields.add(64, 6, RESERVED)
    for at in range(72, len(content), 24):
        fields.add(at + 18, 6, RESERVED)
    return fields


def fields_of_region(content: bytes, referred: set[tuple[int, int]], listed: list[tuple[int, int]]) -> Fields:
    """All bytes of the region outside the objects that are referred to."""
    fields = common_header()
    fields.add(35, 5, RESERVED)
    end = 40
    for start, length in [*sorted(listed), (len(content), 0)]:
        fields.add(end, start - end, PADDING)
        if (start, length) not in referred:
            fields.add(start, length, UNUSED_OBJECT)
        end = start + length
    return fields


def fields_of_ids(content: bytes, referred: set[tuple[int, int]]) -> Fields:
    fields = common_header()
    fields.add(35, 5, RESERVED)
    fields.add(40, 8, ID_TABLE)
    for at in range(48, len(content), 40):
        length, _, offset = struct.unpack_from("<Q24sQ", content, at)
        used = (offset, length) in referred
        fields.add(at, 40, ID_AS_OF_A_STRANGER if used else UNUSED_ID)
    return fields


def same_writer(directory: Path, existing: str | None, new: str | None = None) -> ImageWriter:
    """The same images in every run."""
    return ImageWriter(directory, existing, new, sync=False, time=TIME, seed=b"integrity")


def make_images(directory: Path) -> Path:
    """A fork of an image with everything that the format has, a part of it replaced by the fork and an extension."""
    with same_writer(directory, None, "base.cim") as image:
        add(image, "d", attributes=DIRECTORY)
        add(image, "d\\inner", attributes=DIRECTORY)
        add(image, "empty directory", attributes=DIRECTORY)
        for name in ("a", "b", "c"):
            add(image, f"d\\{name}", name.encode() * 700)
        add(image, "d\\inner\\large", bytes(range(256)) * 20)
        add(
            image,
            "full",
            b"content",
            **METADATA,
            creation_time=1,
            last_write_time=2,
            change_time=3,
            last_access_time=4,
        )
        image.create_alternate_stream("full:s", 6)
        image.write(b"stream")
        image.create_file("sparse", size=100_000)
        image.create_file("empty")
        image.commit()
    with same_writer(directory, "base.cim", "fork.cim") as image:
        add(image, "d\\b", b"changed")
        image.delete_path("d\\a")
        image.create_hard_link("link", "full")
        image.commit()
    with same_writer(directory, "fork.cim") as image:
        add(image, "d\\new", b"new" * 2000)
        image.commit()
    return directory / "fork.cim"


class Layout:
    """Which objects the image refers to, by independent reading; and what lies around them."""

    def __init__(self, path: Path) -> None:
        self.referred: dict[int, set[tuple[int, int]]] = {}
        image = cimoracle.Image(path.parent, path.name)
        self.names = image.header.region_names
        upcase = struct.unpack("<Q", image.at(image.header.filesystem_offset, 8, "filesystem object"))[0]
        self.refer(image.header.filesystem_offset, 24)
        self.refer(upcase, UPCASE_SIZE)
        self.refer(image.directory_offset, 16 * image.table_count)
        for n in range(image.table_count):
            offset, valid, size, _ = struct.unpack("<QHHI", image.at(image.directory_offset, 16 * (n + 1), "")[-16:])
            self.refer(offset, valid * size)
        for entry in image.entries().values():
            record = image.record(entry.file_id)
            sd, ea, reparse, streams = struct.unpack_from("<4Q", record, 56)
            self.refer(sd, 2 + len(entry.sd))
            self.refer(ea, len(entry.eas))
            self.refer(reparse, 2 + len(entry.reparse))
            if streams:
                self.refer(streams, struct.unpack("<I", image.at(streams, 4, "streams"))[0])
            for stream in (entry.stream, *entry.alternate_streams.values()):
                if not stream.sparse:
                    self.refer(stream.offset, stream.size)
        self.upcase = upcase
        self.listed: dict[int, list[tuple[int, int]]] = {}
        for one in cimoracle.object_ids(path.parent, path.name):
            self.listed.setdefault(one.region, []).append((one.offset, one.length))

    def refer(self, offset: int, size: int) -> None:
        if offset and size:
            self.referred.setdefault(offset >> 48, set()).add((offset & (1 << 48) - 1, size))

    def fields(self, directory: Path, cim: str) -> dict[str, Fields]:
        found = {cim: fields_of_cim((directory / cim).read_bytes())}
        for n, name in enumerate(self.names):
            referred, listed = self.referred.get(n, set()), self.listed.get(n, [])
            assert referred <= set(listed)
            region = directory / f"region_{name}"
            found[region.name] = fields_of_region(region.read_bytes(), referred, listed)
            ids = directory / f"objectid_{name}"
            found[ids.name] = fields_of_ids(ids.read_bytes(), referred)
        return found


def outcome(path: Path) -> str:
    try:
        with ImageReader(path) as image:
            report = image.verify()
    except ImageError:
        return "found"
    if report.problem_count:
        return "found"
    return "unjudged" if report.unjudged else "silent"


def flip(path: Path, offset: int, mask: int) -> None:
    with path.open("r+b", buffering=0) as file:
        value = os.pread(file.fileno(), 1, offset)[0]
        os.pwrite(file.fileno(), bytes([value ^ mask]), offset)


def offsets_to_flip(name: str, size: int, upcase: int) -> list[int]:
    if STRIDE:
        return list(range(0, size, STRIDE))
    if not name.startswith("region_"):
        return list(range(size))
    dense = [*range(min(size, 40)), *range(40, size, SAMPLE)]
    return [at for at in dense if not upcase <= at < upcase + UPCASE_SIZE or at % (SAMPLE * 50) == 0]


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="needs pwrite")
def test_a_flipped_byte_is_found_or_known_not_to_matter(tmp_path: Path) -> None:
    cim = make_images(tmp_path)
    assert_sound(cim)
    layout = Layout(cim)
    assert layout.upcase >> 48 == 0
    missed: list[str] = []
    counted: Counter[tuple[str, str | None]] = Counter()
    for n, (name, fields) in enumerate(layout.fields(tmp_path, cim.name).items()):
        path = tmp_path / name
        upcase = layout.upcase if n == 1 else 1 << 62
        for number, offset in enumerate(offsets_to_flip(name, path.stat().st_size, upcase)):
            for mask in MASKS if STRIDE == 1 and n != 1 else (MASKS[number % len(MASKS)],):
                flip(path, offset, mask)
                result = outcome(cim)
                flip(path, offset, mask)
                reason = fields.reason(offset)
                counted[result, reason] += 1
                allowed = {"found"}
                if reason in (ID_AS_OF_A_STRANGER, ID_TABLE):
                    allowed.add("unjudged")
                if reason in SILENT or reason == ID_TABLE:
                    allowed.add("silent")
                if result not in allowed:
                    missed.append(f"{name} at {offset} ^ {mask:#x}: {result}, {reason}")
    assert not missed, "\n".join(missed[:50])
    assert_sound(cim)
    # The list is no longer than it must be: each reason was met, and nothing that is found stands on it by mistake.
    assert {reason for result, reason in counted if result != "found"} == {*SILENT, ID_AS_OF_A_STRANGER, ID_TABLE}
    assert sum(count for (result, _), count in counted.items() if result == "found") > 1000
