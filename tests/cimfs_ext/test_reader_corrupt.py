"""ImageReader: corrupt images."""

import re
import struct
from pathlib import Path

import pytest

from cimfs_ext import errors
from cimfs_ext.reader import ImageReader
from support.cimbytes import LINKS, REGION_SET, Builder, patch, region_file
from support.images import NULL_DACL, add, make_image, writer
from support.platforms import A_SYMLINK
from support.readers import NOISE, check_small_tree, small_tree, u16, u32, u64


def everything(path: Path) -> list[str]:
    """Look at all there is, then fork it; the messages of verify."""
    with ImageReader(path) as image:
        for _, entry in image.walk():
            image.security_descriptor(entry)
            image.extended_attributes(entry)
            image.reparse_data(entry)
            if not entry.is_directory:
                with image.open(entry) as file:
                    while file.read(1 << 16):
                        pass
            for name in image.streams(entry):
                with image.open(entry, stream=name.name) as file:
                    file.read(1 << 16)
        return [str(problem) for problem in image.verify().problems]


MISSING_REGION = 3 << 48 | 4096


BEYOND = 1 << 40


RECORD_OF_FULL = 3 * 96


# What is patched where, and the reason that is given. Offsets in records and tables as in docs/format.md.
DAMAGE: dict[str, tuple[str, int, bytes, str]] = {
    "filesystem: upcase table in a missing region": (
        "filesystem",
        0,
        u64(MISSING_REGION),
        "region that the image",
    ),
    "filesystem: upcase table beyond the end": ("filesystem", 0, u64(BEYOND), "beyond the end"),
    "filesystem: upcase table null": ("filesystem", 0, u64(0), "header"),
    "filesystem: directory beyond the end": ("filesystem", 8, u64(BEYOND), "beyond the end"),
    "filesystem: too many tables": ("filesystem", 16, u32(2**32 - 1), "beyond the end"),
    "filesystem: no tables": ("filesystem", 16, u32(0), "no file table has"),
    "filesystem: root is file 0": ("filesystem", 20, u32(0), "no file table has"),
    "filesystem: root is too large": ("filesystem", 20, u32(1025), "no file table has"),
    "filesystem: root is not there": ("filesystem", 20, u32(99), "end of its file table"),
    "filesystem: root is a file": ("filesystem", 20, u32(1), "not a directory"),
    "table: beyond the end": ("directory", 0, u64(BEYOND), "beyond the end"),
    "table: null": ("directory", 0, u64(0), "header"),
    "table: more than 1024 files": ("directory", 8, u16(1025), "more than 1024"),
    "table: no files": ("directory", 8, u16(0), "end of its file table"),
    "table: records without size": ("directory", 10, u16(0), "no size"),
    "table: records too large": ("directory", 8, u16(1024) + u16(0xFFFF), "beyond the end"),
    "record: content in a missing region": ("table 0", 40, u64(MISSING_REGION), "region that the image"),
    "record: content beyond the end": ("table 0", 40, u64(2 << 48 | BEYOND), "beyond"),
    "record: content null": ("table 0", 40, u64(0), "header"),
    "record: content too long": ("table 0", 48, u64((1 << 48) - 1), "beyond"),
    "record: unknown stream type": ("table 0", 48, u64(5 | 9 << 48), "unknown type"),
    "record: a file says that it is a directory": ("table 0", 48, u64(5 | LINKS << 48), "."),
    "record: descriptor beyond the end": ("table 0", RECORD_OF_FULL + 56, u64(BEYOND), "beyond the end"),
    "record: descriptor at the very end": (
        "table 0",
        RECORD_OF_FULL + 56,
        u64((1 << 48) - 1),
        "beyond the end",
    ),
    "record: EA beyond the end": ("table 0", RECORD_OF_FULL + 64, u64(BEYOND), "beyond the end"),
    "record: EA at the very end": ("table 0", RECORD_OF_FULL + 64, u64((1 << 48) - 1), "beyond the end"),
    "record: reparse data beyond the end": ("table 0", RECORD_OF_FULL + 72, u64(BEYOND), "beyond the end"),
    "record: streams beyond the end": ("table 0", RECORD_OF_FULL + 80, u64(BEYOND), "beyond the end"),
    "descriptor: length too large": ("last", 0, u16(0xFFFF), "beyond the end"),
    "streams: length too large": ("streams", 0, u32(2**32 - 1), "beyond the end"),
    "streams: length too small": ("streams", 0, u32(8), "does not fit"),
    "streams: count too large": ("streams", 4, u32(2**32 - 1), "does not fit"),
    "streams: a directory": ("streams", 16, u64(9 | LINKS << 48), "unknown type"),
    "links: length too large": ("links of d", 0, u32(2**32 - 1), "does not fit"),
    "links: length too small": ("links of d", 0, u32(11), "does not fit"),
    "links: count too large": ("links of d", 4, u32(2**32 - 1), "does not fit"),
    "links: count overflows": ("links of d", 4, u32(0x20000000), "does not fit"),
    "links: file ID 0": ("links of d", 8, u32(0), "does not exist"),
    "links: file ID too large": ("links of d", 8, u32(2**32 - 1), "does not exist"),
    "links: file ID of no file": ("links of d", 8, u32(77), "end of its file table"),
    "links: name outside the table": ("links of d", 20, u32(2**32 - 1), "outside its link table"),
    "links: name at the table's end": ("links of d", 20, u32(44), "."),
    "links: name of no units": ("links of d", 32, u16(0), "bad length"),
    "links: name too long": ("links of d", 32, u16(256), "bad length"),
    "links: name reaches out of the table": ("links of d", 40, u16(200), "bad length"),
    "links: names out of order": ("links of d", 34, b"z\0", "out of order"),
    "links: one name twice": ("links of d", 34, b"b\0", "out of order"),
    "links: names that differ in case": ("links of d", 34, b"B\0", "out of order"),
    "links: a backslash in a name": ("links of d", 34, b"\\\0", "separator"),
    "links: a slash in a name": ("links of d", 34, b"/\0", "separator"),
    "links: a NUL in a name": ("links of d", 34, b"\0\0", "separator"),
    "links: a directory in itself": ("links of d", 8, u32(5), "lies in itself"),
    "links: the root below itself": ("links of d", 8, u32(6), "lies in itself"),
    "links: a directory with two names": ("links of the root", 12, u32(5), "two names"),
}


def built(tmp_path: Path) -> tuple[Builder, Path]:
    builder = Builder()
    root = small_tree(builder)
    builder.save(tmp_path / "a.cim", root)
    # Something right at the end of the region, so that one byte more is one too many.
    builder.records[3] = builder.records[3][:56] + u64(builder.counted(NULL_DACL, "last")) + builder.records[3][64:]
    region, at = builder.places["table 0"]
    builder.regions[region][at + 3 * 96 : at + 4 * 96] = builder.records[3]
    region_file(tmp_path / "a.cim", 0).write_bytes(builder.regions[0])
    return builder, tmp_path / "a.cim"


def test_image_to_be_damaged_is_sound(tmp_path: Path) -> None:
    _, path = built(tmp_path)
    check_small_tree(path)
    assert everything(path) == []


@pytest.mark.parametrize("name", DAMAGE)
def test_corrupt_image(tmp_path: Path, name: str) -> None:
    builder, path = built(tmp_path)
    place, at, data, reason = DAMAGE[name]
    builder.patch(path, place, at, data)
    with pytest.raises(errors.CorruptImageError, match=reason) as raised:
        everything(path)
    error = raised.value
    assert (error.hresult, error.errno is not None) == (0x80070570, True)
    message = str(error)
    if "two names" not in reason and "itself" not in reason:
        assert (
            ".cim" in message
            if "region that the image" in reason
            else re.search(r"region_\S+_\d at offset \d+", message)
        )
    try:
        with ImageReader(path) as image:
            problems = image.verify().problems
            assert problems
            assert all(problem.file and problem.reason for problem in problems)
    except errors.CorruptImageError as at_open:
        assert str(at_open) == message
    try:
        with writer(tmp_path, "a.cim", "b.cim") as fork:
            for directory in ("", "d\\"):
                add(fork, f"{directory}new", b"x")
                add(fork, f"{directory}a", b"y")
            fork.create_alternate_stream("full:new", 0)
            fork.delete_path("d")
            fork.commit()
    except errors.CorruptImageError:
        assert not (tmp_path / "b.cim").exists()


FILES: dict[str, tuple[str, int, bytes, str]] = {
    "magic": ("{}", 0, b"cimfile1", "magic"),
    "version 1": ("{}", 16, u32(1), "version"),
    "version 4": ("{}", 16, u32(4), "version"),
    "type": ("{}", 12, b"\7", "type"),
    "header length": ("{}", 8, u32(8), "header"),
}


@pytest.mark.parametrize("damage", FILES)
@pytest.mark.parametrize("file", ["cim", "0", "1", "2"])
def test_damaged_headers(tmp_path: Path, file: str, damage: str) -> None:
    _, path = built(tmp_path)
    target = path if file == "cim" else region_file(path, int(file))
    _, at, data, reason = FILES[damage]
    patch(target, at, data)
    with pytest.raises(errors.CorruptImageError, match=reason) as raised:
        everything(path)
    assert target.name in str(raised.value)


def test_region_with_the_number_of_another(tmp_path: Path) -> None:
    _, path = built(tmp_path)
    patch(region_file(path, 1), 32, u16(2))
    with pytest.raises(errors.CorruptImageError, match="number"):
        everything(path)


@pytest.mark.parametrize("size", [0, 1, 31, 71])
def test_truncated_filesystem_file(tmp_path: Path, size: int) -> None:
    _, path = built(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(errors.CorruptImageError, match=r"a\.cim"):
        ImageReader(path)


@pytest.mark.parametrize(
    ("at", "data"),
    [
        (70, u16(1)),
        (70, u16(0xFFFF)),
        (48, u16(0)),
        (48, u16(1)),
        (32, bytes(16)),
        (56, u64(0)),
        (56, u64(BEYOND)),
    ],
)
def test_filesystem_file_that_lies(tmp_path: Path, at: int, data: bytes) -> None:
    _, path = built(tmp_path)
    patch(path, at, data)
    with pytest.raises(errors.CorruptImageError):
        everything(path)


def test_more_regions_than_the_format_has(tmp_path: Path) -> None:
    _, path = built(tmp_path)
    header = bytearray(path.read_bytes())
    header[70:72] = u16(2)
    sets = b"".join(struct.pack("<16sH6x", bytes([i]) * 16, 0xFFFF) for i in range(2))
    path.write_bytes(header + sets)
    with pytest.raises(errors.CorruptImageError, match="65,536"):
        ImageReader(path)


@pytest.mark.parametrize("repeated", ["a parent's set", "its own set"])
def test_region_set_that_stands_in_the_list_twice(tmp_path: Path, repeated: str) -> None:
    _, path = built(tmp_path)
    header = bytearray(path.read_bytes())
    header[70:72] = u16(3)
    own, parent, other = (struct.pack("<16sH6x", id_, 1) for id_ in (header[32:48], b"p" * 16, b"q" * 16))
    path.write_bytes(header + parent + other + (own if repeated == "its own set" else parent))
    with pytest.raises(errors.CorruptImageError, match=r"a region set stands in the list twice.*: .*a\.cim"):
        ImageReader(path)


def test_every_truncation_of_a_region(tmp_path: Path) -> None:
    _, path = built(tmp_path)
    for index in range(3):
        target = region_file(path, index)
        whole = target.read_bytes()
        for size in {*range(0, 48, 7), *range(len(whole) - 400, len(whole), 23), len(whole) - 1} & set(
            range(len(whole))
        ):
            target.write_bytes(whole[:size])
            with pytest.raises(errors.CorruptImageError):
                everything(path)
        target.write_bytes(whole)
    assert everything(path) == []


@pytest.mark.parametrize("index", range(3))
def test_missing_region(tmp_path: Path, index: int) -> None:
    _, path = built(tmp_path)
    region_file(path, index).unlink()
    with pytest.raises(errors.CorruptImageError, match=rf"{REGION_SET}_{index}"):
        everything(path)


def replace(target: Path, kind: str) -> None:
    moved = target.replace(target.with_name("elsewhere"))
    if kind == "a directory":
        target.mkdir()
    else:
        target.symlink_to(moved)


NO_PLAIN_FILES = [A_SYMLINK, "a directory"]


@pytest.mark.parametrize("kind", NO_PLAIN_FILES)
def test_region_must_be_a_plain_file(tmp_path: Path, kind: str) -> None:
    _, path = built(tmp_path)
    replace(region_file(path, 2), kind)
    with pytest.raises(errors.CorruptImageError, match=rf"not a plain file in region_{REGION_SET}_2"):
        everything(path)


@pytest.mark.parametrize("kind", NO_PLAIN_FILES)
def test_paths_behind_a_region_that_is_no_plain_file_are_not_missing(tmp_path: Path, kind: str) -> None:
    """Whoever takes "not there" for an answer would lose a whiteout."""
    make_image(tmp_path, "a.cim", {"x": b"1"})
    with ImageReader(make_image(tmp_path, "b.cim", {"d": None, "d\\secret": b"2"}, "a.cim")) as image:
        region = tmp_path / image.region_sets[-1].file_names()[0]
    path = make_image(tmp_path, "c.cim", {"y": b"3"}, "b.cim")
    replace(region, kind)
    with ImageReader(path) as image, pytest.raises(errors.CorruptImageError, match="not a plain file"):
        image.exists("d\\secret")
    with writer(tmp_path, "c.cim", "d.cim") as fork:
        with pytest.raises(errors.CorruptImageError, match="not a plain file"):
            fork.delete_path("d\\secret")
        with pytest.raises(errors.InvalidCallError, match="can only be closed"):
            fork.commit()


@pytest.mark.parametrize("kind", NO_PLAIN_FILES)
def test_image_and_object_ids_must_be_plain_files(tmp_path: Path, kind: str) -> None:
    path = make_image(tmp_path, "a.cim", {"x": b"1"})
    with ImageReader(path) as image:
        ids = image.region_sets[-1].file_names()[3]
        replace(tmp_path / ids, kind)
        assert {(problem.file, problem.reason) for problem in image.verify().problems} == {
            (ids, "the object ID file is not a plain file")
        }
    make_image(tmp_path, "b.cim", {"y": b"2"}, "a.cim")  # which can do without
    replace(path, kind)
    with pytest.raises(errors.CorruptImageError, match=r"not a regular file.*: .*a\.cim"):
        ImageReader(path)


PE_DAMAGE: dict[str, tuple[int, bytes]] = {
    "data beyond the end": (0, u64(1 << 48 | BEYOND)),
    "data in a missing region": (0, u64(MISSING_REGION)),
    "data shorter than the stream": (8, u64(100)),
    "data longer than the region": (8, u64((1 << 47) - 1)),
    "too many mappings": (20, u16(0xFFFF)),
    "mapping beyond the data": (28, u32(2**32 - 1)),
}


@pytest.mark.parametrize("name", PE_DAMAGE)
def test_corrupt_pe_image(tmp_path: Path, name: str) -> None:
    builder = Builder()
    file = builder.add(builder.pe_image(NOISE[:9000], 9000, [(4096, 0), (6000, 0)]))
    path = builder.save(tmp_path / "a.cim", builder.directory({"x": file}))
    at, data = PE_DAMAGE[name]
    builder.patch(path, "pe", at, data)
    if name == "data longer than the region":
        builder.patch(path, "pe", 28, u32(1 << 20))
    with pytest.raises(errors.CorruptImageError, match="offset"):
        everything(path)
    with ImageReader(path) as image:
        assert image.verify().problem_count == 1
