"""Win32 backup streams: what is in them, however they are cut, and what is refused."""

import struct
from array import array
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimfs_ext.backupstream import BackupStreamParser, BackupStreamWriter
from cimfs_ext.errors import FormatError

DATA, EA, SECURITY, ALTERNATE, LINK, PROPERTY, OBJECT_ID, REPARSE, BLOCK, TXF, GHOSTED = range(1, 12)
SPARSE = 8
LARGEST_ATTACHMENT = 0x10400

make = BackupStreamWriter


def stream(stream_id: int, data: bytes = b"", *, attributes: int = 0, name: str = "", size: int | None = None) -> bytes:
    """One stream as the specification lays it out; ``size`` is what the header says if it lies."""
    encoded = name.encode("utf-16-le", "surrogatepass")
    size = len(data) if size is None else size
    return struct.pack("<IIQI", stream_id, attributes, size, len(encoded)) + encoded + data


def block(offset: int, data: bytes = b"") -> bytes:
    return stream(BLOCK, struct.pack("<Q", offset) + data)


SPARSE_DATA = stream(DATA, attributes=SPARSE)
SPARSE_ZONE = stream(ALTERNATE, attributes=SPARSE, name=":zone:$DATA")


def joined(events: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Events with the pieces of each content put together, zeros included."""
    result: list[tuple[Any, ...]] = []
    content = bytearray()

    def end_content() -> None:
        if content:
            result.append(("content", bytes(content)))
            content.clear()

    for kind, *fields in events:
        if kind == "data":
            assert len(fields[0]) > 0
            content.extend(fields[0])
        elif kind == "zeros":
            assert fields[0] > 0
            content.extend(bytes(fields[0]))
        else:
            end_content()
            result.append((kind, *fields))
    end_content()
    return result


def parse(data: bytes, file_size: int, cuts: Iterable[int] = ()) -> list[tuple[Any, ...]]:
    parser = BackupStreamParser(file_size, "file")
    events: list[tuple[Any, ...]] = []
    for start, end in pairwise([0, *sorted(cuts), len(data)]):
        events += parser.feed(data[start:end])
    parser.finish()
    assert parser.offset == len(data)
    return joined(events)


def everywhere(data: bytes) -> range:
    return range(1, len(data))


ACCEPTED = {
    "nothing at all": (0, b"", []),
    "empty data": (0, stream(DATA), []),
    "data": (3, stream(DATA, b"abc"), [("content", b"abc")]),
    "data marked sparse": (3, stream(DATA, b"abc", attributes=SPARSE), [("content", b"abc")]),
    "data modified when read": (3, stream(DATA, b"abc", attributes=1), [("content", b"abc")]),
    "security": (0, stream(SECURITY, b"sd", attributes=2), [("attachment", SECURITY, b"sd")]),
    "EAs": (0, stream(EA, b"ea"), [("attachment", EA, b"ea")]),
    "reparse data": (0, stream(REPARSE, b"rp"), [("attachment", REPARSE, b"rp")]),
    "empty attachment": (0, stream(REPARSE), [("attachment", REPARSE, b"")]),
    "largest attachment": (
        0, stream(SECURITY, bytes(LARGEST_ATTACHMENT)), [("attachment", SECURITY, bytes(LARGEST_ATTACHMENT))],
    ),
    "the same attachment twice": (
        0, stream(EA, b"1") + stream(EA, b"2"), [("attachment", EA, b"1"), ("attachment", EA, b"2")],
    ),
    "metadata around data": (
        1, stream(SECURITY, b"sd") + stream(DATA, b"x") + stream(EA, b"ea"),
        [("attachment", SECURITY, b"sd"), ("content", b"x"), ("attachment", EA, b"ea")],
    ),
    "ignored streams": (
        1, b"".join(stream(n, b"zz", name="x") for n in (LINK, PROPERTY, OBJECT_ID, TXF)) + stream(DATA, b"x")
        + stream(GHOSTED), [("content", b"x")],
    ),
    "alternate stream": (
        0, stream(ALTERNATE, b"12", name=":zone:$DATA"), [("stream", "zone", 2), ("content", b"12")],
    ),
    "alternate streams after data": (
        1, stream(DATA, b"x") + stream(ALTERNATE, name=":a:$DATA") + stream(ALTERNATE, b"2", name=":b:$DATA"),
        [("content", b"x"), ("stream", "a", 0), ("stream", "b", 1), ("content", b"2")],
    ),
    "alternate stream's type in another case": (0, stream(ALTERNATE, name=":z:$daTa"), [("stream", "z", 0)]),
    "alternate stream without a type": (0, stream(ALTERNATE, name=":z"), [("stream", "z", 0)]),
    "alternate stream with a lone surrogate": (
        0, stream(ALTERNATE, name=":\ud800x:$DATA"), [("stream", "\ud800x", 0)],
    ),
    "alternate stream named like a byte order mark": (
        0, stream(ALTERNATE, name=":\ufeff:$DATA"), [("stream", "\ufeff", 0)],
    ),
    "alternate stream with the longest name": (
        0, stream(ALTERNATE, name=f":{'n' * 255}:$DATA"), [("stream", "n" * 255, 0)],
    ),
    "sparse, no size": (0, SPARSE_DATA, []),
    "sparse, no size, closed": (0, SPARSE_DATA + block(0), []),
    "sparse, nothing allocated": (9, SPARSE_DATA + block(9), [("content", bytes(9))]),
    "sparse, several ranges": (
        9, SPARSE_DATA + block(1, b"ab") + block(5, b"c") + block(9),
        [("content", b"\0ab\0\0c\0\0\0")],
    ),
    "sparse, ranges that touch": (
        4, SPARSE_DATA + block(0, b"ab") + block(2, b"cd") + block(4), [("content", b"abcd")],
    ),
    "sparse, metadata after the closing block": (
        2, SPARSE_DATA + block(2) + stream(SECURITY, b"sd"),
        [("content", bytes(2)), ("attachment", SECURITY, b"sd")],
    ),
    "sparse alternate stream": (
        1, stream(DATA, b"x") + SPARSE_ZONE + block(1, b"a") + block(3),
        [("content", b"x"), ("stream", "zone", None), ("content", b"\0a\0")],
    ),
    "sparse alternate stream, nothing allocated": (
        0, SPARSE_ZONE + block(5), [("stream", "zone", None), ("content", bytes(5))],
    ),
    "sparse alternate stream, empty": (0, SPARSE_ZONE, [("stream", "zone", None)]),
    "sparse alternate stream, one range": (
        0, stream(ALTERNATE, b"ab", attributes=SPARSE, name=":z:$DATA"),
        [("stream", "z", 2), ("content", b"ab")],
    ),
    "sparse data, sparse alternate stream": (
        2, SPARSE_DATA + block(2) + SPARSE_ZONE + block(1),
        [("content", bytes(2)), ("stream", "zone", None), ("content", b"\0")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file_size", "data", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_stream_gives_its_events(file_size: int, data: bytes, expected: list[tuple[Any, ...]]) -> None:
    assert parse(data, file_size) == expected


@pytest.mark.parametrize(("file_size", "data", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_stream_in_single_bytes_gives_its_events(file_size: int, data: bytes, expected: list[tuple[Any, ...]]) -> None:
    assert parse(data, file_size, everywhere(data)) == expected


class Refused(NamedTuple):
    """A backup stream up to the fault, and from there on (nothing, where something is missing)."""

    file_size: int
    before: bytes
    fault: bytes
    reason: str


OK = stream(SECURITY, b"sd")
FAR = 1 << 63
REFUSED = {
    "ID 0": Refused(0, OK, stream(0), "unknown stream ID"),
    "ID 12": Refused(0, OK, stream(12), "unknown stream ID"),
    "size of 64 bits": Refused(0, OK, stream(LINK, size=FAR), "63 bits"),
    "large descriptor": Refused(0, OK, stream(SECURITY, size=LARGEST_ATTACHMENT + 1), "too large"),
    "large EAs": Refused(0, OK, stream(EA, size=LARGEST_ATTACHMENT + 1), "too large"),
    "large reparse data": Refused(0, OK, stream(REPARSE, size=LARGEST_ATTACHMENT + 1), "too large"),
    "odd name": Refused(0, OK, struct.pack("<IIQI", ALTERNATE, 0, 0, 7) + b":\0a\0b\0c", "odd"),
    "odd name of an ignored stream": Refused(0, OK, struct.pack("<IIQI", LINK, 0, 0, 1) + b"a", "odd"),
    "endless name": Refused(0, OK, struct.pack("<IIQI", ALTERNATE, 0, 0, 0xFFFFFFFE), "too large length"),
    "no name": Refused(0, OK, stream(ALTERNATE), "no valid name"),
    "default stream's name": Refused(0, OK, stream(ALTERNATE, name="::$DATA"), "no valid name"),
    "name without colon": Refused(0, OK, stream(ALTERNATE, name="zone:$DATA"), "no valid name"),
    "name with NUL": Refused(0, OK, stream(ALTERNATE, name=":a\0b:$DATA"), "no valid name"),
    "name with backslash": Refused(0, OK, stream(ALTERNATE, name=":..\\b:$DATA"), "no valid name"),
    "name with slash": Refused(0, OK, stream(ALTERNATE, name=":a/b:$DATA"), "no valid name"),
    "name of 256 units": Refused(0, OK, stream(ALTERNATE, name=f":{'n' * 256}"), "no valid name"),
    "index stream": Refused(0, OK, stream(ALTERNATE, name=":$I30:$INDEX_ALLOCATION"), "another type"),
    "almost $DATA": Refused(0, OK, stream(ALTERNATE, name=":a:$DATE"), "another type"),
    "more than $DATA": Refused(0, OK, stream(ALTERNATE, name=":a:$DATA:"), "another type"),
    "second data": Refused(1, stream(DATA, b"x"), stream(DATA, b"x"), "after another stream"),
    "data after alternate": Refused(0, stream(ALTERNATE, name=":a"), stream(DATA), "after another stream"),
    "data too short": Refused(5, OK, stream(DATA, b"1234"), "not of the file's size"),
    "data too long": Refused(5, OK, stream(DATA, b"123456"), "not of the file's size"),
    "empty data of a file with a size": Refused(5, OK, stream(DATA), "not of the file's size"),
    "sparse data too short": Refused(5, OK, stream(DATA, b"1", attributes=SPARSE), "not of the file's size"),
    "alternate stream in the place of data": Refused(5, OK, stream(ALTERNATE, name=":a"), "no data stream"),
    "no data": Refused(5, OK, b"", "no data stream"),
    "block without data": Refused(5, OK, block(5), "follows no sparse stream"),
    "block after ordinary data": Refused(1, stream(DATA, b"x"), block(1), "follows no sparse stream"),
    "block after metadata": Refused(0, SPARSE_DATA + OK, block(0), "follows no sparse stream"),
    "block after the last": Refused(5, SPARSE_DATA + block(5), block(5), "after the closing one"),
    "block of 7 bytes": Refused(5, SPARSE_DATA, stream(BLOCK, bytes(7)), "no room"),
    "block back": Refused(5, SPARSE_DATA + block(1, b"ab"), block(2, b"c"), "before the end of the previous"),
    "block begins beyond the end": Refused(5, SPARSE_DATA, block(6), "beyond the end"),
    "block ends beyond the end": Refused(5, SPARSE_DATA, block(3, b"abc"), "beyond the end"),
    "block that overflows": Refused(5, SPARSE_DATA, block((1 << 64) - 1, b"ab"), "beyond the end"),
    "alternate block that overflows": Refused(0, SPARSE_ZONE, block(FAR - 2, b"ab"), "beyond the end"),
    "closing block early": Refused(5, SPARSE_DATA + block(1, b"a"), block(4), "not at the end"),
    "sparse data without blocks": Refused(5, SPARSE_DATA, b"", "no closing block"),
    "sparse data not closed": Refused(5, SPARSE_DATA + block(0, b"12345"), b"", "no closing block"),
    "sparse data closed by metadata": Refused(5, SPARSE_DATA + block(0, b"12345"), OK, "no closing block"),
    "alternate stream not closed": Refused(0, SPARSE_ZONE + block(0, b"a"), b"", "no closing block"),
    "alternate stream closed by another": Refused(
        0, SPARSE_ZONE + block(0, b"a"), stream(ALTERNATE, name=":b"), "no closing block"
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_malformed_stream_is_refused_where_it_is_at_fault(case: Refused) -> None:
    data = case.before + case.fault
    for cuts in ((), everywhere(data)):
        with pytest.raises(FormatError, match=case.reason) as caught:
            parse(data, case.file_size, cuts)
        assert (caught.value.what, caught.value.offset) == ("file", len(case.before))


def test_stream_cut_short_anywhere_is_refused_at_its_end() -> None:
    file = stream(SECURITY, b"sd") + SPARSE_DATA + block(1, b"ab") + block(5)
    data = file + stream(ALTERNATE, b"12", name=":a:$DATA")
    whole = {len(file), len(data)}
    for end in range(len(data) + 1):
        if end in whole:
            parse(data[:end], 5)
            continue
        with pytest.raises(FormatError) as caught:
            parse(data[:end], 5)
        assert caught.value.offset == end


def test_failed_parser_stays_failed() -> None:
    parser = BackupStreamParser(0, "file")
    for attempt in (lambda: parser.feed(stream(DATA, b"x")), lambda: parser.feed(OK), parser.finish):
        with pytest.raises(FormatError, match="not of the file's size"):
            attempt()


def test_content_is_a_read_only_view_of_what_was_fed() -> None:
    data = bytearray(stream(DATA, b"abc"))
    ((kind, view),) = BackupStreamParser(3, "file").feed(data)
    data[-3:] = b"xyz"
    assert (kind, view.obj is data, view.readonly, bytes(view)) == ("data", True, True, b"xyz")


def test_content_is_one_event_for_each_write() -> None:
    parser = BackupStreamParser(3 << 20, "file")
    sizes = []
    for write in (stream(DATA, size=3 << 20), bytes(1 << 20), bytes(2 << 20)):
        sizes += [len(view) for _, view in parser.feed(write)]
    assert sizes == [1 << 20, 2 << 20]


def test_attachment_comes_when_it_is_complete() -> None:
    parser = BackupStreamParser(0, "file")
    data = stream(SECURITY, b"descriptor")
    assert parser.feed(data[:-1]) == []
    assert parser.feed(data[-1:]) == [("attachment", SECURITY, b"descriptor")]


@pytest.mark.parametrize("wrap", [bytearray, memoryview, lambda data: array("H", data)])
def test_any_contiguous_buffer_is_taken(wrap: Any) -> None:
    assert joined(BackupStreamParser(2, "file").feed(wrap(stream(DATA, b"ab")))) == [("content", b"ab")]


def test_zeros_of_a_huge_hole_are_one_event() -> None:
    size = (1 << 63) - 1
    parser = BackupStreamParser(size, "file")
    assert parser.feed(SPARSE_DATA + block(size)) == [("zeros", size)]
    parser.finish()


SHAPES = {
    "no size": (0, [], SPARSE_DATA),
    "no size, an empty range": (0, [(0, b"")], SPARSE_DATA),
    "nothing allocated": (9, [], SPARSE_DATA + block(9)),
    "one range that is all": (3, [(0, b"abc")], stream(DATA, b"abc")),
    "one range": (9, [(3, b"abc")], SPARSE_DATA + block(3, b"abc") + block(9)),
    "several ranges": (9, [(1, b"a"), (8, b"b")], SPARSE_DATA + block(1, b"a") + block(8, b"b") + block(9)),
}


@pytest.mark.parametrize(("size", "ranges", "expected"), SHAPES.values(), ids=SHAPES)
def test_writer_gives_sparse_content_its_shape(size: int, ranges: list[tuple[int, bytes]], expected: bytes) -> None:
    assert b"".join(make.sparse_data(size, ranges)) == expected


WRITTEN = {
    "data": ([*make.data(b"abc")], stream(DATA, b"abc")),
    "data in chunks": ([*make.data(iter([b"a", bytearray(b"bc")]), 3)], stream(DATA, b"abc")),
    "data of wide items": ([*make.data(array("I", [1]))], stream(DATA, array("I", [1]).tobytes())),
    "security": ([*make.security(b"sd")], stream(SECURITY, b"sd")),
    "EAs": ([*make.extended_attributes(b"ea")], stream(EA, b"ea")),
    "reparse data": ([*make.reparse(b"rp")], stream(REPARSE, b"rp")),
    "links": ([*make.links("a", "b")], stream(LINK, b"a\0") + stream(LINK, b"b\0")),
    "alternate stream": ([*make.alternate_stream("z", b"1")], stream(ALTERNATE, b"1", name=":z:$DATA")),
    "sparse alternate stream": ([*make.sparse_alternate_stream("zone", 7, [])], SPARSE_ZONE + block(7)),
}


@pytest.mark.parametrize(("chunks", "expected"), WRITTEN.values(), ids=WRITTEN)
def test_writer_lays_out_each_stream(chunks: list[bytes], expected: bytes) -> None:
    assert b"".join(chunks) == expected


@pytest.mark.parametrize("size", [2, 4])
def test_writer_refuses_content_of_another_size(size: int) -> None:
    with pytest.raises(ValueError, match="3 bytes, but"):
        list(make.data([b"a", b"bc"], size))


@pytest.mark.parametrize("ranges", [[(0, b"ab"), (1, b"c")], [(8, b"ab")], [(-1, b"a")]])
def test_writer_refuses_ranges_that_have_no_place(ranges: list[tuple[int, bytes]]) -> None:
    with pytest.raises(ValueError, match="the range at"):
        list(make.sparse_data(9, ranges))


class Written(NamedTuple):
    """Pieces of a backup stream, and the events that they must give."""

    chunks: bytes
    events: list[tuple[Any, ...]]


METADATA = [(EA, make.extended_attributes), (SECURITY, make.security), (REPARSE, make.reparse)]
LETTERS = st.characters(exclude_characters=":\\/\0", exclude_categories=["Cs"])
NAMES = st.text(LETTERS, min_size=1, max_size=20)


@st.composite
def sparse_contents(draw: st.DrawFn) -> tuple[int, list[tuple[int, bytes]], bytes]:
    ranges = []
    content = b""
    for gap, data in draw(st.lists(st.tuples(st.integers(0, 50), st.binary(max_size=50)), max_size=5)):
        content += bytes(gap)
        ranges.append((len(content), data))
        content += data
    content += bytes(draw(st.integers(0, 50)))
    return len(content), ranges, content


@st.composite
def metadata(draw: st.DrawFn) -> Written:
    chunks, events = b"", []
    for (stream_id, method), data in draw(
        st.lists(st.tuples(st.sampled_from(METADATA), st.binary(max_size=60)), max_size=2)
    ):
        chunks += b"".join(method(data))
        events.append(("attachment", stream_id, data))
    return Written(chunks + b"".join(make.links(*draw(st.lists(NAMES, max_size=1)))), events)


@st.composite
def backup_streams(draw: st.DrawFn) -> tuple[int, Written]:
    size, ranges, content = draw(sparse_contents())
    parts = [draw(metadata())]
    data = make.sparse_data(size, ranges) if draw(st.booleans()) else make.data(content)
    parts.append(Written(b"".join(data), [("content", content)] if content else []))
    for name in draw(st.lists(NAMES, max_size=2)):
        parts.append(draw(metadata()))
        length, ranges, content = draw(sparse_contents())
        contents = [("content", content)] if content else []
        if draw(st.booleans()):
            in_one_piece = [data for _, data in ranges if data] == [content]
            announced = length if in_one_piece else None
            chunks = b"".join(make.sparse_alternate_stream(name, length, ranges))
            parts.append(Written(chunks, [("stream", name, announced), *contents]))
        else:
            chunks = b"".join(make.alternate_stream(name, content))
            parts.append(Written(chunks, [("stream", name, length), *contents]))
    parts.append(draw(metadata()))
    written = Written(b"".join(p.chunks for p in parts), [event for p in parts for event in p.events])
    return size, written


@given(backup_streams(), st.data())
def test_what_was_written_is_read_however_it_is_cut(sample: tuple[int, Written], data: st.DataObject) -> None:
    file_size, written = sample
    cuts = data.draw(st.lists(st.integers(0, len(written.chunks)), max_size=20))
    assert parse(written.chunks, file_size, cuts) == written.events
