"""ImageReader: tables and bytes that are shared."""

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from cimfs_ext import errors
from cimfs_ext.reader import ImageReader
from support import cimoracle
from support.cimbytes import DATA, LINKS, PE_IMAGE, Builder, link_table, region_file, stream
from support.images import make_image
from support.readers import (
    NOISE,
    sample,  # noqa: F401  fixtures
    u64,
)


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
        assert [path for path, _ in image.walk("a")] == ["a\\b", "a\\b\\c", "a\\b\\d", "a\\e", "a\\e\\f"]
        assert [path for path, _ in image.walk(image.stat("a\\e"))] == ["f"]


def test_entry_of_another_image(tmp_path: Path, sample: Path) -> None:
    with ImageReader(sample) as image:
        entry = image.stat("big")
    with ImageReader(make_image(tmp_path, "a.cim", {})) as other, pytest.raises(errors.CorruptImageError):
        other.read(entry)
