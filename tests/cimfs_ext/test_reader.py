"""ImageReader: good images, and what it says of bad ones (docs/format.md)."""

import bisect
import errno
import io
import os
import random
import re
import struct
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cimfs_ext import errors, reader
from cimfs_ext.entries import StreamEntry
from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from support import cimoracle
from support.cimbytes import DATA, LINKS, PE_IMAGE, REGION_SET, Builder, link_table, patch, region_file, stream
from support.images import DIRECTORY, NULL_DACL, TIME, add, make_image, read_files, writer

NOISE = random.Random(2).randbytes(3 << 20)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sample")
    with ImageWriter(directory, None, "a.cim", sync=False, time=TIME) as image:
        for path in ("d", "d\\e", "empty"):
            add(image, path, attributes=DIRECTORY)
        for name in ("b", "A", "C", "_", "ä", "Z", "a1"):
            add(image, f"d\\{name}", name.encode())
        add(
            image,
            "big",
            NOISE,
            attributes=0x21,
            creation_time=1,
            last_write_time=2,
            change_time=3,
            last_access_time=4,
        )
        image.create_alternate_stream("big:zone", 5)
        image.write(b"hello")
        image.create_alternate_stream("big:Large", 1 << 20)
        image.write(NOISE[: 1 << 20])
        image.create_file("sparse", size=10_000)
        add(image, "link", attributes=0x400, reparse_data=struct.pack("<IHH", 0xA000000C, 4, 0) + b"abcd")
        image.create_hard_link("d\\e\\hard", "big")
        image.commit()
    return directory / "a.cim"


# ---- look up, list, stat ----


def test_listing_is_in_the_order_of_upcased_names(sample: Path) -> None:
    with ImageReader(sample) as image:
        assert [entry.name for entry in image.listdir("d")] == ["A", "a1", "b", "C", "e", "Z", "_", "ä"]
        assert image.listdir("empty") == []


def test_walk_gives_each_directory_before_what_it_holds(sample: Path) -> None:
    with ImageReader(sample) as image:
        paths = [path for path, _ in image.walk()]
        assert [path for path, _ in image.walk("D")] == [
            f"D\\{n}" for n in ("A", "a1", "b", "C", "e", "Z", "_", "ä", "e\\hard")
        ]
    assert sorted(paths) == sorted(path for path in cimoracle.read_image(sample.parent, sample.name) if path)
    for path in paths:
        parent = path.rpartition("\\")[0]
        assert not parent or paths.index(parent) < paths.index(path)


@pytest.mark.parametrize("path", ["d\\e\\hard", "D\\E\\HARD", "\\d\\e\\hard", "d/e/hard", "/d\\e/hard/"])
def test_paths_that_name_the_same(sample: Path, path: str) -> None:
    with ImageReader(sample) as image:
        assert image.exists(path)
        assert image.stat(path).file_id == image.stat("big").file_id
        assert image.stat(path).name.upper() == "HARD"


@pytest.mark.parametrize("path", ["", "\\", "/"])
def test_root(sample: Path, path: str) -> None:
    with ImageReader(sample) as image:
        root = image.stat(path)
        assert (root.name, root.is_directory, root.parent_id) == ("", True, root.file_id)
        assert [entry.name for entry in image.listdir(path)] == ["big", "d", "empty", "link", "sparse"]


@pytest.mark.parametrize(
    "path",
    ["x", "d\\x", "x\\y", "big\\x", "d\\\\A", "d\\.", "..", "d\\e\0", "a" * 300, "a\\" * 40000, "big:zone"],
)
def test_paths_that_are_not_there(sample: Path, path: str) -> None:
    with ImageReader(sample) as image:
        assert not image.exists(path)
        for call in (image.stat, image.listdir, image.read, image.streams, image.security_descriptor):
            with pytest.raises(errors.PathNotFoundError) as raised:
                call(path)
            assert raised.value.hresult == 0x80070003
            assert raised.value.filename == path


def test_stat_of_a_file(sample: Path) -> None:
    with ImageReader(sample) as image:
        entry = image.stat("BIG")
        assert (entry.name, entry.size, entry.attributes, entry.sparse) == ("BIG", len(NOISE), 0x21, False)
        assert (entry.creation_time, entry.last_write_time, entry.change_time, entry.last_access_time) == (
            1,
            2,
            3,
            4,
        )
        link = image.stat("link")
        assert (link.is_reparse_point, link.is_directory, link.reparse_tag) == (True, False, 0xA000000C)
        assert image.reparse_data(link)[8:] == b"abcd"
        assert image.security_descriptor(link) == NULL_DACL
        assert image.extended_attributes(link) == b""


def test_entry_serves_where_a_path_does(sample: Path) -> None:
    with ImageReader(sample) as image:
        (directory,) = (entry for entry in image.listdir() if entry.name == "d")
        (file,) = (entry for entry in image.listdir(directory) if entry.name == "ä")
        assert image.read(file) == "ä".encode()
        assert [name for name, _ in image.walk(directory)] == [name[2:] for name, _ in image.walk("d")]


def test_files_have_no_children_and_directories_no_content(sample: Path) -> None:
    with ImageReader(sample) as image:
        with pytest.raises(NotADirectoryError):
            image.listdir("big")
        with pytest.raises(IsADirectoryError):
            image.read("d")


@pytest.mark.parametrize("name", ["missing.cim", "missing/a.cim", "a.cim/x", "", "."])
def test_image_that_is_not_there(sample: Path, name: str) -> None:
    with pytest.raises(OSError, match=re.escape(name) if name else ".") as raised:
        ImageReader(f"{sample.parent}/{name}")
    assert isinstance(raised.value, errors.ImageError)


def test_image_is_found_by_any_kind_of_path(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sample.parent)
    for path in (sample, str(sample), b"a.cim", "a.cim", "./a.cim"):
        with ImageReader(path) as image:
            assert image.exists("big")


def test_closed_reader_takes_no_calls(sample: Path) -> None:
    image = ImageReader(sample)
    entry = image.stat("big")
    file = image.open("big")
    image.close()
    image.close()
    calls: list[Callable[[], object]] = [
        lambda: image.stat("big"),
        image.listdir,
        lambda: image.read(entry),
        image.verify,
        lambda: image.version,
        lambda: image.region_sets,
        lambda: list(image.walk()),
        lambda: file.read(1),
        lambda: image.streams(entry),
        lambda: image.security_descriptor(entry),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()


def test_reader_in_use_cannot_be_closed(tmp_path: Path) -> None:
    content = random.Random(5).randbytes(20 << 20)
    refused: list[str] = []

    def close(_: int) -> None:
        with pytest.raises(RuntimeError, match="in use") as raised:
            image.close()
        refused.append(str(raised.value))

    with ImageReader(make_image(tmp_path, "a.cim", {"x": content})) as image:
        assert image.verify(close).ok
        assert image.read("x") == content
    assert set(refused) == {"a.cim: the image is in use"}
    with pytest.raises(ValueError, match="closed"):
        image.read("x")


def test_stream_needs_an_image() -> None:
    with pytest.raises(TypeError):
        reader._StreamCursor(None, "x", None)  # type: ignore[attr-defined]


def test_threads_may_share_a_reader(sample: Path) -> None:
    def work(_: int) -> tuple[bytes, int]:
        return image.read("big"), len(list(image.walk()))

    with ImageReader(sample) as image, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(32))) == {(NOISE, 14)}


# ---- content ----


def test_streams_in_the_order_of_their_names(sample: Path) -> None:
    with ImageReader(sample) as image:
        assert image.streams("big") == [StreamEntry("Large", 1 << 20), StreamEntry("zone", 5)]
        assert image.streams("d") == []
        assert image.read("big", "LARGE") == NOISE[: 1 << 20]
        with pytest.raises(errors.PathNotFoundError):
            image.read("big", "missing")
        with pytest.raises(errors.PathNotFoundError):
            image.read("d", "missing")


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 10), (4090, 20), (len(NOISE) - 5, 100), (len(NOISE), 1), (1 << 40, 9), (7, 0)]
)
def test_reading_at_an_offset(sample: Path, offset: int, size: int) -> None:
    with ImageReader(sample) as image, image.open("big") as file:
        assert file.seek(offset) == offset
        assert file.read(size) == NOISE[offset : offset + size]
        assert file.tell() == offset + len(NOISE[offset : offset + size])


def test_stream_reader_is_a_raw_file(sample: Path) -> None:
    with ImageReader(sample) as image, image.open("big") as file:
        assert isinstance(file, io.RawIOBase)
        assert (file.readable(), file.seekable(), file.writable(), file.size) == (
            True,
            True,
            False,
            len(NOISE),
        )
        assert file.seek(-3, io.SEEK_END) == len(NOISE) - 3
        assert file.read() == NOISE[-3:]
        assert file.read() == b""
        assert file.seek(-5, io.SEEK_CUR) == len(NOISE) - 5
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
        file.seek(100)
        target = bytearray(8)
        assert file.readinto(memoryview(target)[2:6]) == 4
        assert target == bytes(2) + NOISE[100:104] + bytes(2)
        with pytest.raises((TypeError, ValueError, BufferError)):
            file.readinto(b"read-only")
        file.close()
        with pytest.raises(ValueError, match="closed"):
            file.read(1)


def test_buffered_reading(sample: Path) -> None:
    with ImageReader(sample) as image, io.BufferedReader(image.open("big"), 1000) as file:
        assert file.read(1500) == NOISE[:1500]
        file.seek(1 << 20)
        assert file.peek(10)[:10] == NOISE[1 << 20 :][:10]
        assert file.read() == NOISE[1 << 20 :]


def test_sparse_content(sample: Path) -> None:
    with ImageReader(sample) as image:
        assert image.stat("sparse").sparse
        assert image.read("sparse") == bytes(10_000)


# ---- images of other writers ----


def small_tree(builder: Builder) -> int:
    inner = builder.add(builder.data(b"inner"), parent=2)
    children = {
        "a": inner,
        "b": builder.add(builder.data(NOISE[:9000])),
        "c": builder.add(stream(0, 12345, DATA, True)),
    }
    streams = link_table([("s", builder.data(b"stream")), ("t", stream(0, 99, DATA, True))])
    table = builder.put(streams, 0, "streams")
    reparse = struct.pack("<IHH", 0xA000000C, 4, 0) + b"link"
    ea = struct.pack("<IBBH", 0, 0, 1, 2) + b"E\0ab"
    full = builder.add(
        builder.data(b"full"),
        flags=0x1F,
        tag=0xA000000C,
        security=builder.counted(NULL_DACL, "sd"),
        reparse=builder.counted(reparse, "reparse"),
        ea=builder.put(ea, 0, "ea"),
        ea_size=len(ea),
        streams=table,
    )
    directory = builder.directory(children, "links of d")
    return builder.directory({"d": directory, "full": full}, "links of the root")


def check_small_tree(path: Path) -> None:
    with ImageReader(path) as image:
        assert [name for name, _ in image.walk()] == ["d", "full", "d\\a", "d\\b", "d\\c"]
        assert image.read("d\\a") == b"inner"
        assert image.read("D\\B") == NOISE[:9000]
        assert image.read("d\\c") == bytes(12345)
        assert image.stat("d\\c").sparse
        full = image.stat("full")
        assert full.attributes == 0x627
        assert (full.creation_time, full.last_write_time, full.change_time, full.last_access_time) == (
            1,
            2,
            3,
            4,
        )
        assert image.security_descriptor(full) == NULL_DACL
        assert image.reparse_data(full)[8:] == b"link"
        assert image.extended_attributes(full)[-2:] == b"ab"
        assert {stream.name: image.read(full, stream.name) for stream in image.streams(full)} == {
            "s": b"stream",
            "t": bytes(99),
        }
        report = image.verify()
    assert report.problems == ()
    assert (report.files, report.directories, report.streams) == (4, 2, 2)


@pytest.mark.parametrize("record_size", [88, 96, 97, 128, 1000])
@pytest.mark.parametrize("version", [2, 3])
def test_versions_and_record_sizes(tmp_path: Path, version: int, record_size: int) -> None:
    builder = Builder(version, record_size)
    path = builder.save(tmp_path / "a.cim", small_tree(builder))
    check_small_tree(path)
    with ImageReader(path) as image:
        assert image.version == version
        (own,) = image.region_sets
        assert (own.set_id, own.count) == (REGION_SET, 3)
        assert image.stat("d\\a").parent_id == (0 if record_size == 88 else 2)


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("record_size", [88, 96, 128, 1024])
@pytest.mark.parametrize("version", [2, 3])
def test_fork_of_a_strangers_image(tmp_path: Path, version: int, record_size: int, extend: bool) -> None:
    builder = Builder(version, record_size)
    before = read_files(builder.save(tmp_path / "a.cim", small_tree(builder)))
    with writer(tmp_path, "a.cim", None if extend else "b.cim") as image:
        add(image, "d\\B", b"new")
        add(image, "d\\d", attributes=DIRECTORY)
        add(image, "d\\d\\x", b"x")
        image.delete_path("d\\c")
        image.create_alternate_stream("full:T", 1)
        image.write(b"!")
        image.commit()
    expected = {**before, "d\\B": b"new", "d\\d": None, "d\\d\\x": b"x"}
    del expected["d\\b"], expected["d\\c"]
    assert read_files(tmp_path / image.name) == expected
    with ImageReader(tmp_path / image.name) as reader:
        assert reader.read("full", "t") == b"!"
        assert reader.stat("full").attributes == 0x627
        assert reader.verify().problems == ()


def test_records_that_a_fork_would_copy_for_each_change_are_not_of_any_size(tmp_path: Path) -> None:
    builder = Builder(record_size=1025)
    path = builder.save(tmp_path / "a.cim", small_tree(builder))
    with pytest.raises(errors.CorruptImageError, match=r"more than 1,024 bytes"):
        writer(tmp_path, "a.cim", "b.cim")
    assert len(read_files(path)) > 3


def pe_file(image: bytes, length: int, mappings: list[tuple[int, int]]) -> bytes:
    """What the format says that a PE stream reads as, byte by byte."""
    starts = [start for start, _ in mappings]
    deltas = [0, *(delta for _, delta in mappings)]
    return bytes(image[position + deltas[bisect.bisect(starts, position)]] for position in range(length))


PE_IMAGES = [
    (5000, 5000, []),
    (9000, 5000, [(0, 4000)]),
    (20_000, 9000, [(1024, 3072), (2048, 6144), (5000, 10_000)]),
    (20_000, 9000, [(0, 0), (512, 512), (513, 1024), (8999, 11_000)]),
    (20_000, 1000, [(100, 500), (1000, 19_000), (50_000, 7)]),
    (70_000, 60_000, [(i, i % 7) for i in range(0, 60_000, 3)]),
]


@pytest.mark.parametrize(("stored", "length", "mappings"), PE_IMAGES)
def test_pe_image(tmp_path: Path, stored: int, length: int, mappings: list[tuple[int, int]]) -> None:
    builder = Builder()
    file = builder.add(builder.pe_image(NOISE[:stored], length, mappings))
    path = builder.save(tmp_path / "a.cim", builder.directory({"x.dll": file}))
    content = pe_file(NOISE, length, mappings)
    with ImageReader(path) as image:
        assert image.stat("x.dll").size == length
        assert image.read("x.dll") == content
        with image.open("x.dll") as opened:
            for at in (0, 1, 1023, 1024, 2047, 4999, length - 1):
                if at < length:
                    opened.seek(at)
                    assert opened.read(700) == content[at : at + 700]
        report = image.verify()
        assert report.problems == ()
        assert report.unjudged > 0


# ---- corrupt images ----


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
                with image.open(entry, name.name) as file:
                    file.read(1 << 16)
        return [str(problem) for problem in image.verify().problems]


u16, u32, u64 = (struct.Struct(code).pack for code in ("<H", "<I", "<Q"))
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
    with pytest.raises(errors.CorruptImageError, match=r"a region set stands in the list twice: .*a\.cim"):
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
    moved = target.rename(target.with_name("elsewhere"))
    if kind == "a directory":
        target.mkdir()
    else:
        target.symlink_to(moved)


NO_PLAIN_FILES = ["a symbolic link", "a directory"]


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
    with pytest.raises(errors.CorruptImageError, match=r"not a regular file: .*a\.cim"):
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


@pytest.mark.parametrize("kind", ["files", "PE images"])
def test_verify_reads_shared_bytes_once(tmp_path: Path, kind: str) -> None:
    """Also where a hostile image has many objects lie over each other."""
    builder = Builder()
    start = builder.put(NOISE[: 1 << 20], 1)
    if kind == "files":
        streams = [stream(start + i, (1 << 20) - i) for i in range(500)]
    else:
        streams = [builder.pe_image(b"", 1 << 20, []) for _ in range(500)]
    files = {f"{i}": builder.add(data) for i, data in enumerate(streams)}
    path = builder.save(tmp_path / "a.cim", builder.directory(files))
    if kind == "PE images":
        content = region_file(path, 0).read_bytes()
        header = struct.pack("<QQ", builder.put(b"", 1), 1 << 63)
        assert content.count(header) == 500
        region_file(path, 0).write_bytes(content.replace(header, struct.pack("<QQ", start, 1 << 20)))
    with ImageReader(path) as image:
        assert image.read("7") == (NOISE[7 : 1 << 20] if kind == "files" else NOISE[: 1 << 20])
        report = image.verify()
    assert report.problems == ()
    assert report.bytes < 2 << 20


def shared_streams(builder: Builder, count: int) -> dict[str, int]:
    """Files with one table of alternate streams, the last one of which is of unknown type."""
    streams = [*(stream(0, 8, DATA, True) for _ in range(count - 1)), stream(0, 8, 9)]
    at = builder.put(link_table([(f"{i:05}", value) for i, value in enumerate(streams)]))
    return {f"{i:05}": builder.add(streams=at) for i in range(count)}


def shared_children(builder: Builder, count: int) -> dict[str, int]:
    """Directories with one table of files, the last name of which is out of order."""
    names = [*(f"{i:05}" for i in range(count)), "0"]
    table = link_table([(name, struct.pack("<I", builder.add())) for name in names])
    at = builder.put(table)
    return {f"{i:05}": builder.add(stream(at, len(table), LINKS)) for i in range(count)}


def shared_mappings(builder: Builder, count: int) -> dict[str, int]:
    """Files that are one PE image, the last mapping of which points beyond its data."""
    mappings = [*((i, 0) for i in range(1, count)), (count, 2**32 - 1)]
    image = builder.pe_image(NOISE[:9000], 9000, mappings)
    return {f"{i:05}": builder.add(image) for i in range(count)}


@pytest.mark.parametrize(
    ("children", "reason"),
    [
        (shared_streams, "a stream of unknown type"),
        (shared_children, "the names of a link table are out of order"),
        (shared_mappings, "a mapping of a PE image points beyond its data"),
    ],
)
def test_verify_walks_a_shared_table_once(
    tmp_path: Path, children: Callable[[Builder, int], dict[str, int]], reason: str
) -> None:
    builder = Builder()
    path = builder.save(tmp_path / "a.cim", builder.directory(children(builder, 500)))
    with ImageReader(path) as image:
        report = image.verify()
    assert [problem.reason for problem in report.problems] == [reason]
    if children is shared_streams:
        assert (report.files, report.streams) == (500, 500 * 500)
    elif children is shared_children:
        assert (report.files, report.directories) == (500, 501)
    else:
        assert report.files == 500


def test_directory_that_lies_in_a_shared_table_has_two_names(tmp_path: Path) -> None:
    builder = Builder()
    table = link_table([("inner", struct.pack("<I", builder.directory({})))])
    shared = stream(builder.put(table), len(table), LINKS)
    children = {name: builder.add(shared) for name in ("a", "b")}
    path = builder.save(tmp_path / "a.cim", builder.directory(children))
    with ImageReader(path) as image:
        assert [problem.reason for problem in image.verify().problems] == [
            "a directory has two names, or lies in itself"
        ]


def test_verify_walks_no_more_tables_than_fit_into_the_regions(tmp_path: Path) -> None:
    """A stream for each length that a PE image could have: no table is the same, and all are."""
    builder = Builder()
    header = builder.pe_image(NOISE[:9000], 1, [(i, 0) for i in range(9000)])
    (at,) = struct.unpack_from("<Q", header)
    files = {f"{i:05}": builder.add(stream(at, 8000 + i, PE_IMAGE)) for i in range(500)}
    path = builder.save(tmp_path / "a.cim", builder.directory(files))
    seen: list[int] = []
    with ImageReader(path) as image:
        report = image.verify(seen.append)
    assert {problem.reason for problem in report.problems} == {"the tables of the image overlap one another"}
    assert len(seen) < 10


def test_verify_reads_nothing_of_what_ends_beyond_its_region(tmp_path: Path) -> None:
    builder = Builder()
    start = builder.put(NOISE[: 1 << 20], 1)
    files = {f"{i:03}": builder.add(stream(start, (1 << 40) + i)) for i in range(100)}
    path = builder.save(tmp_path / "a.cim", builder.directory(files))
    with ImageReader(path) as image:
        report = image.verify()
    assert {problem.reason for problem in report.problems} == {"an object reaches beyond the end of its region"}
    assert (report.problem_count, report.bytes < 1 << 20) == (100, True)


def test_verify_can_be_stopped_where_it_reads_nothing(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    builder = Builder()
    file = builder.add(builder.pe_image(NOISE[:70_000], 70_000, [(i, 0) for i in range(1, 65_536)]))
    path = builder.save(tmp_path / "a.cim", builder.directory({"x": file}))
    with ImageReader(path) as image, pytest.raises(KeyboardInterrupt):
        image.verify(stop)


def test_overlapping_objects_of_ours_are_a_problem(tmp_path: Path) -> None:
    path = make_image(tmp_path, "a.cim", {"x": NOISE[:100], "y": NOISE[100:150]})
    with ImageReader(path) as image:
        own = image.region_sets[-1].file_names()
    ids = tmp_path / own[5]
    data = bytearray(ids.read_bytes())
    for at in range(48, len(data), 40):
        (length,) = struct.unpack_from("<Q", data, at)
        if length == 50:
            struct.pack_into("<Q", data, at + 32, 48)
    region = tmp_path / own[2]
    content = bytearray(region.read_bytes())
    content[48:98] = NOISE[100:150]
    metadata = tmp_path / own[0]
    (offset,) = (entry.stream.offset for entry in cimoracle.read_image(tmp_path, "a.cim").values() if entry.path == "y")
    changed = metadata.read_bytes().replace(u64(offset), u64(2 << 48 | 48))
    ids.write_bytes(data)
    region.write_bytes(content)
    metadata.write_bytes(changed)
    with ImageReader(path) as image:
        assert "an object overlaps another one" in {problem.reason for problem in image.verify().problems}


def test_walk_stops_at_the_longest_path(tmp_path: Path) -> None:
    builder = Builder()
    directory = builder.directory({})
    for _ in range(140):
        directory = builder.directory({"x" * 255: directory})
    path = builder.save(tmp_path / "a.cim", directory)
    with ImageReader(path) as image, pytest.raises(errors.CorruptImageError, match="32,767"):
        list(image.walk())


def test_walk_keeps_no_path_for_what_it_has_still_to_visit(tmp_path: Path) -> None:
    builder = Builder()
    directory = builder.directory({f"{i:05}": builder.directory({}) for i in range(1000)})
    for _ in range(127):
        directory = builder.directory({"x" * 255: directory})
    with ImageReader(builder.save(tmp_path / "a.cim", directory)) as image:
        tracemalloc.start()
        paths = {path[-8:] for path, _ in image.walk()}
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(paths) == 1000 + 1
    assert peak < 4 << 20


def test_walk_of_a_tree_gives_the_path_of_each_entry(tmp_path: Path) -> None:
    paths = ["a", "a\\b", "a\\b\\c", "a\\b\\d", "a\\e", "a\\e\\f", "g", "g\\b", "g\\b\\c", "h"]
    with ImageReader(make_image(tmp_path, "a.cim", dict.fromkeys(paths))) as image:
        assert sorted(path for path, _ in image.walk()) == paths
        assert [path for path, _ in image.walk("A/b/")] == ["A\\b\\c", "A\\b\\d"]
        assert [path for path, _ in image.walk("a")] == ["a\\b", "a\\e", "a\\b\\c", "a\\b\\d", "a\\e\\f"]
        assert [path for path, _ in image.walk(image.stat("a\\e"))] == ["f"]


def test_entry_of_another_image(tmp_path: Path, sample: Path) -> None:
    with ImageReader(sample) as image:
        entry = image.stat("big")
    with ImageReader(make_image(tmp_path, "a.cim", {})) as other, pytest.raises(errors.CorruptImageError):
        other.read(entry)


# ---- verify ----


def test_verify_counts(sample: Path) -> None:
    seen: list[int] = []
    with ImageReader(sample) as image:
        report = image.verify(seen.append)
    assert report.ok
    assert (report.files, report.directories, report.streams) == (10, 4, 2)
    assert (report.unjudged, report.problem_count) == (0, 0)
    objects = cimoracle.object_ids(sample.parent, sample.name)
    assert (report.objects, report.bytes) == (len(objects), sum(item.length for item in objects))
    assert seen == sorted(seen)


@pytest.mark.parametrize(("more", "where"), [(0, r"files: .*a\.cim"), (1, "files in region_")])
def test_running_out_of_descriptors_is_no_problem_of_the_image(tmp_path: Path, more: int, where: str) -> None:
    resource = pytest.importorskip("resource")
    with ImageReader(make_image(tmp_path, "a.cim", {"x": b"1"})) as image:
        free = os.dup(0)
        os.close(free)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, limits[1]))
        try:
            with pytest.raises(errors.ImageError, match=where) as raised:
                image.verify()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert raised.value.errno == errno.EMFILE
        assert image.verify().ok


def test_relative_path_of_an_image_holds_when_the_current_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image(tmp_path, "a.cim", {"x": b"1"})
    monkeypatch.chdir(tmp_path)
    with ImageReader("a.cim") as image:
        monkeypatch.chdir("/")
        assert image.read("x") == b"1"
        assert image.verify().ok


def test_verify_is_stopped_by_its_progress(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    data = random.Random(4).randbytes(20 << 20)
    with ImageReader(make_image(tmp_path, "a.cim", {"x": data})) as image, pytest.raises(KeyboardInterrupt):
        image.verify(stop)


def findings(path: Path) -> int:
    """How much verify complains of, an image that does not even open included."""
    try:
        with ImageReader(path) as image:
            report = image.verify()
            return report.problem_count + report.unjudged
    except errors.CorruptImageError:
        return 1


def flip(path: Path, at: int) -> None:
    patch(path, at, bytes([path.read_bytes()[at] ^ 0x10]))


def small_image(tmp_path: Path) -> Path:
    make_image(tmp_path, "p.cim", {"d": None, "d\\old": b"kept in the parent", "d\\large": NOISE[:5000]})
    with writer(tmp_path, "p.cim", "a.cim") as image:
        add(image, "d\\x", b"small content")
        add(image, "e", attributes=DIRECTORY, extended_attributes=struct.pack("<IBBH", 0, 0, 1, 2) + b"E\0ab")
        add(image, "e\\y", NOISE[:4500], reparse_data=struct.pack("<IHH", 0xA000000C, 4, 0) + b"abcd")
        image.create_alternate_stream("d\\old:s", 3)
        image.write(b"abc")
        image.commit()
    return tmp_path / "a.cim"


def test_verify_finds_every_flipped_byte(tmp_path: Path) -> None:
    """Of content, of each kind of table, of descriptors and buffers, of the filesystem object."""
    path = small_image(tmp_path)
    assert findings(path) == 0
    names = cimoracle.read_header(tmp_path, "a.cim").region_names
    objects = cimoracle.object_ids(tmp_path, "a.cim")
    with ImageReader(path) as image:
        referred = image.verify().objects
    undetected = set()
    for item in objects:
        target = tmp_path / f"region_{names[item.region]}"
        step = max(1, item.length // 30)
        for at in {*range(item.offset, item.offset + item.length, step), item.offset + item.length - 1}:
            flip(target, at)
            if findings(path) == 0:
                undetected.add((item.region, item.offset))
            flip(target, at)
    assert findings(path) == 0
    assert len(objects) - len(undetected) == referred  # the others are the parent's alone


def test_verify_finds_flipped_bytes_of_object_id_files(tmp_path: Path) -> None:
    path = small_image(tmp_path)
    for target in tmp_path.glob("objectid_*"):
        table, count = struct.unpack_from("<II", target.read_bytes(), 40)
        own = str(ImageReader(path).region_sets[-1].set_id) in target.name
        for at in {
            *range(0, 8),
            12,
            16,
            32,
            40,
            41,
            44,
            *range(table, table + 40 * count if own else table, 3),
        }:
            flip(target, at)
            found = findings(path)
            flip(target, at)
            assert found or at == 44, f"{target.name} at {at}"
    assert findings(path) == 0


def test_verify_tells_of_missing_object_id_files(tmp_path: Path) -> None:
    path = small_image(tmp_path)
    with ImageReader(path) as image:
        name = image.region_sets[-1].file_names()[3]
        (tmp_path / name).unlink()
        report = image.verify()
    assert [problem.file for problem in report.problems] == [name]
    assert not report.ok


def test_verify_names_the_file_and_the_offset(tmp_path: Path) -> None:
    path = make_image(tmp_path, "a.cim", {"x": NOISE[:5000]})
    with ImageReader(path) as image:
        own = image.region_sets[-1].file_names()
    flip(tmp_path / own[1], 4096 + 77)
    with ImageReader(path) as image:
        (problem,) = image.verify().problems
    assert (problem.file, problem.offset, problem.region_offset) == (own[1], 4096, 1 << 48 | 4096)
    assert str(problem) == f"{own[1]} at offset 4096: an object's bytes do not match its content ID"
