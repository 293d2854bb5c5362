"""ImageReader: look up, list, stat, content, images of other writers, verify."""

import bisect
import errno
import io
import os
import random
import re
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cimfs_ext import cursor, errors
from cimfs_ext.reader import ImageReader
from cimfs_ext.streamentry import StreamEntry
from support import cimoracle
from support.cimbytes import REGION_SET, Builder, patch
from support.images import DIRECTORY, NULL_DACL, add, make_image, read_files, writer
from support.platforms import same_everywhere
from support.readers import (
    NOISE,
    check_small_tree,
    sample,  # noqa: F401  fixtures
    small_tree,
)

# ---- look up, list, stat ----


def test_listing_is_in_the_order_of_upcased_names(sample: Path) -> None:
    with ImageReader(sample) as image:
        assert [entry.name for entry in image.listdir("d")] == ["A", "a1", "b", "C", "e", "Z", "_", "ä"]
        assert image.listdir("empty") == []


def test_walk_is_depth_first(sample: Path) -> None:
    with ImageReader(sample) as image:
        paths = [path for path, _ in image.walk()]
        assert [path for path, _ in image.walk("D")] == [
            f"D\\{n}" for n in ("A", "a1", "b", "C", "e", "e\\hard", "Z", "_", "ä")
        ]
    assert sorted(paths) == sorted(path for path in cimoracle.read_image(sample.parent, sample.name) if path)
    for path in paths:
        parent = path.rpartition("\\")[0]
        between = paths[paths.index(parent) + 1 : paths.index(path)] if parent else []
        assert all(other.startswith(f"{parent}\\") for other in between)


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
    for path in (sample, str(sample), "a.cim", "./a.cim"):
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
        cursor.StreamCursor(None, "x", None)  # type: ignore[arg-type]


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
    resource = pytest.importorskip("resource", reason="POSIX only: limits of a process")
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


@same_everywhere
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


@same_everywhere
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
