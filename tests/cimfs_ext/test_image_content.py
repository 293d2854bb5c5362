"""ImageWriter: metadata, content, alternate streams."""

import struct
import time
from pathlib import Path

import pytest

from cimfs_ext import errors
from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from support.images import (
    DIRECTORY,
    NULL_DACL,
    TIME,
    add,
    assert_sound,
    make_image,
    names_in,
    read_tree,
    writer,
)
from support.written import (
    E_EOF,
    E_INVALIDARG,
    E_PATH,
    NOISE,
    committed,
    image,  # noqa: F401  fixtures
    region_bytes,
)

# ---- metadata ----


ALL_ATTRIBUTES = 0xFFFFFFFF & ~0x10


def test_attributes_that_the_format_keeps(image: ImageWriter) -> None:
    add(image, "all", attributes=ALL_ATTRIBUTES)
    add(image, "normal", attributes=0x80)
    for bit in range(16):
        if bit != 4:
            add(image, f"{bit}", attributes=1 << bit)
    add(image, "dir", attributes=0xFFFFFFFF)
    committed(image)
    tree = read_tree(Path(image.directory) / "a.cim")
    kept = 0x1 | 0x2 | 0x4 | 0x20 | 0x200
    assert tree["all"].attributes == kept
    assert tree["normal"].attributes == 0
    assert tree["dir"].attributes == kept | DIRECTORY
    for bit in range(16):
        if bit != 4:
            assert tree[f"{bit}"].attributes == (1 << bit) & kept


def test_times(image: ImageWriter) -> None:
    add(image, "x", creation_time=1, last_write_time=2**63 - 1, change_time=-1, last_access_time=TIME)
    committed(image)
    (node,) = read_tree(Path(image.directory) / "a.cim").values()
    assert node.times == (1, 2**63 - 1, -1, TIME)


def test_time_of_the_root(tmp_path: Path) -> None:
    with ImageWriter(tmp_path, None, "a.cim", sync=False, time=TIME) as image:
        image.commit()
    make_image(tmp_path, "b.cim", {})
    now = 116444736000000000 + time.time_ns() // 100
    with ImageReader(tmp_path / "a.cim") as reader:
        root = reader.stat("")
        assert {root.creation_time, root.last_write_time, root.change_time, root.last_access_time} == {TIME}
        assert reader.security_descriptor("") == NULL_DACL
    with ImageReader(tmp_path / "b.cim") as reader:
        assert now - 600_000_000 < reader.stat("").creation_time <= now


def test_descriptor_is_kept_and_a_missing_one_has_a_null_dacl(image: ImageWriter) -> None:
    own = bytes([1, 0, 0x14, 0x90]) + NOISE[:60000]
    add(image, "own", security_descriptor=own)
    add(image, "none")
    add(image, "dir", attributes=DIRECTORY)
    committed(image)
    tree = read_tree(Path(image.directory) / "a.cim")
    assert tree["own"].security_descriptor == own
    assert tree["none"].security_descriptor == tree["dir"].security_descriptor == NULL_DACL


def test_equal_descriptors_are_stored_once(tmp_path: Path) -> None:
    descriptor = NULL_DACL + NOISE[:30000]
    with writer(tmp_path, None, "a.cim") as image:
        for i in range(100):
            add(image, f"{i}", security_descriptor=descriptor)
        image.commit()
    assert region_bytes(tmp_path) < 131072 + 2 * len(descriptor)


def ea(name: bytes, value: bytes, following: int = 0) -> bytes:
    return struct.pack("<IBBH", following, 0, len(name), len(value)) + name + b"\0" + value


def reparse(tag: int, data: bytes, guid: bytes = b"") -> bytes:
    return struct.pack("<IHH", tag, len(data), 0) + guid + data


GOOD_EAS = [
    ea(b"A", b""),
    ea(b"NAME", b"value"),
    ea(b"N" * 255, NOISE[:60000]),
    ea(b"ONE", b"1234", 16) + ea(b"TWO", NOISE[:7]),
    ea(b"ONE", b"1", 20) + b"padding!"[:7] + ea(b"TWO", b"2"),
]


BAD_EAS = [
    b"\0",
    ea(b"", b"x"),
    ea(b"A", b"")[:-1],
    ea(b"NAME", b"value")[:-1],
    ea(b"A", b"123", 12),
    ea(b"A", b"123", 4),
    ea(b"A", b"123", 14) + bytes(2) + ea(b"B", b""),
    ea(b"A", b"", 0xFFFFFFF0),
    ea(b"A", b"", 0xFFFFFFFC),
    ea(b"N" * 255, NOISE[:65535]),
]


GOOD_REPARSE = [
    reparse(0xA000000C, b"\0\0\4\0\4\0\4\0\0\0\0\0a\0b\0a\0b\0"),
    reparse(0x80000013, b""),
    reparse(0x9000001A, NOISE[: 16384 - 8]),
    reparse(0x00000100, b"third party", bytes(range(16))),
]


BAD_REPARSE = [
    b"\0",
    reparse(0xA000000C, b"")[:-1],
    reparse(0xA000000C, b"abcd")[:-1],
    reparse(0xA000000C, b"abcd") + b"\0",
    reparse(0x00000100, b"no GUID"),
    reparse(0xA000000C, bytes(65535)),
]


BAD_DESCRIPTORS = [
    b"\1",
    NULL_DACL[:19],
    b"\2" + NULL_DACL[1:],
    NULL_DACL[:3] + b"\0" + bytes(16),
    NULL_DACL + bytes(65516),
]


def test_extended_attributes_and_reparse_data_are_kept(image: ImageWriter) -> None:
    for i, data in enumerate(GOOD_EAS):
        add(image, f"e{i}", extended_attributes=data)
    for i, data in enumerate(GOOD_REPARSE):
        add(image, f"r{i}", reparse_data=data)
        add(image, f"d{i}", reparse_data=data, attributes=DIRECTORY)
    committed(image)
    tree = read_tree(Path(image.directory) / "a.cim")
    assert [tree[f"e{i}"].extended_attributes for i in range(len(GOOD_EAS))] == GOOD_EAS
    with ImageReader(Path(image.directory) / "a.cim") as reader:
        for i, data in enumerate(GOOD_REPARSE):
            for name in (f"r{i}", f"d{i}"):
                assert tree[name].reparse_data == data
                assert tree[name].attributes & 0x400
                assert reader.stat(name).reparse_tag == struct.unpack_from("<I", data)[0]


@pytest.mark.parametrize(
    ("field", "data"),
    [
        *(("extended_attributes", data) for data in BAD_EAS),
        *(("reparse_data", data) for data in BAD_REPARSE),
        *(("security_descriptor", data) for data in BAD_DESCRIPTORS),
    ],
)
def test_malformed_metadata(image: ImageWriter, field: str, data: bytes) -> None:
    with pytest.raises(errors.InvalidCallError) as raised:
        image.create_file("x", **{field: data})
    assert raised.value.hresult == E_INVALIDARG
    assert committed(image) == {}


@pytest.mark.parametrize("size", [1 << 48, (1 << 63) - 1])
def test_sizes_beyond_the_format(image: ImageWriter, size: int) -> None:
    add(image, "x")
    with pytest.raises(errors.InvalidCallError):
        image.create_file("y", size=size)
    with pytest.raises(errors.InvalidCallError):
        image.create_alternate_stream("x:s", size)
    assert committed(image) == {"x": b""}


# ---- content ----


SIZES = [0, 1, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 12345]


@pytest.mark.parametrize("stream", [False, True], ids=["content", "alternate stream"])
@pytest.mark.parametrize("piece", [1 << 30, 4096, 65537, 999_983])
@pytest.mark.parametrize("size", SIZES)
def test_content_of_any_size_in_any_pieces(image: ImageWriter, size: int, piece: int, stream: bool) -> None:
    data = memoryview(NOISE)[7 : 7 + size]
    image.create_file("x", size=0 if stream else size)
    if stream:
        image.create_alternate_stream("x:s", size)
    for at in range(0, size, piece):
        assert image.write(data[at : at + piece]) == len(data[at : at + piece])
    image.commit()
    with ImageReader(Path(image.directory) / "a.cim") as reader:
        assert reader.read("x", "s" if stream else None) == data
        assert reader.stat("x").sparse is False
    assert_sound(Path(image.directory) / "a.cim")


def test_content_in_single_bytes(image: ImageWriter) -> None:
    image.create_file("x", size=5000)
    for byte in NOISE[:5000]:
        image.write(bytes([byte]))
    assert committed(image) == {"x": NOISE[:5000]}


@pytest.mark.parametrize("size", [1, 4096, 70_000, 1 << 40, (1 << 48) - 1])
def test_unwritten_content_is_sparse(image: ImageWriter, size: int) -> None:
    image.create_file("x", size=size)
    image.create_alternate_stream("x:s", size)
    image.commit()
    assert region_bytes(Path(image.directory)) < 140_000
    with ImageReader(Path(image.directory) / "a.cim") as reader:
        assert reader.stat("x").size == size
        assert reader.stat("x").sparse
        with reader.open("x") as file:
            file.seek(max(0, size - 10))
            assert file.read() == bytes(min(size, 10))
    assert_sound(Path(image.directory) / "a.cim")


@pytest.mark.parametrize("stream", ["", ":s"])
@pytest.mark.parametrize(("size", "written"), [(2, 1), (4097, 4096), ((3 << 20) + 17, 3 << 20), (1 << 40, 5000)])
def test_stream_that_was_cut_short_keeps_the_image_from_being_committed(
    image: ImageWriter, size: int, written: int, stream: str
) -> None:
    image.create_file("d", attributes=DIRECTORY)
    image.create_file("d\\x", size=0 if stream else size)
    if stream:
        image.create_alternate_stream(f"d\\x{stream}", size)
    image.write(NOISE[:written])
    reason = f"a stream was closed after {written} of its {size} bytes"
    with pytest.raises(errors.StreamEndError, match=f"close stream: {reason}") as raised:
        image.close_stream()
    assert raised.value.path == f"d\\x{stream}"
    add(image, "y", NOISE[:5000])
    with pytest.raises(errors.StreamEndError, match=f"commit: {reason}") as raised:
        image.commit()
    assert raised.value.image_file == f"d\\x{stream}"
    image.close()
    assert names_in(Path(image.directory)) == []


def test_stream_that_was_cut_short_is_said_when_the_next_one_is_opened(image: ImageWriter) -> None:
    image.create_file("x", size=5)
    image.write(b"abc")
    with pytest.raises(errors.StreamEndError) as raised:
        image.create_file("y")
    assert raised.value.path == "x"


def test_path_of_a_stream_that_was_cut_short_may_be_long(image: ImageWriter) -> None:
    for depth in range(1, 4):
        image.create_file("\\".join(["\u20ac" * 100] * depth), attributes=DIRECTORY)
    image.create_file("\\".join(["\u20ac" * 100] * 3) + "\\x", size=2)
    image.write(b"a")
    with pytest.raises(errors.StreamEndError):
        image.close_stream()
    with pytest.raises(errors.StreamEndError) as raised:
        image.commit()
    assert raised.value.image_file.startswith("\u20ac" * 80)


def test_write_past_the_size_keeps_what_fits(image: ImageWriter) -> None:
    image.create_file("x", size=5)
    image.write(b"abc")
    with pytest.raises(errors.StreamEndError) as raised:
        image.write(b"defgh")
    assert raised.value.hresult == E_EOF
    with pytest.raises(errors.StreamEndError):
        image.write(b"i")
    image.create_alternate_stream("x:s", 0)
    with pytest.raises(errors.StreamEndError):
        image.write(b"i")
    assert committed(image) == {"x": b"abcde"}


def test_directory_has_no_content(image: ImageWriter) -> None:
    image.create_file("d", attributes=DIRECTORY, size=10)
    with pytest.raises(errors.InvalidCallError) as raised:
        image.write(b"abc")
    assert raised.value.hresult == E_INVALIDARG
    assert committed(image) == {"d": None}


def test_write_needs_an_open_stream(image: ImageWriter) -> None:
    with pytest.raises(ValueError, match="no stream"):
        image.write(b"abc")
    add(image, "x", b"1")
    image.close_stream()
    with pytest.raises(ValueError, match="no stream"):
        image.write(b"abc")


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"xabcx")[1:4]])
def test_write_takes_buffers(image: ImageWriter, data: bytes) -> None:
    image.create_file("x", size=3)
    image.write(data)
    assert committed(image) == {"x": b"abc"}


@pytest.mark.parametrize("data", [None, "text", [1, 2], memoryview(b"abcd")[::2]])
def test_write_takes_nothing_but_bytes_in_a_row(image: ImageWriter, data: object) -> None:
    image.create_file("x", size=3)
    with pytest.raises((TypeError, ValueError, BufferError)):
        image.write(data)
    assert committed(image) == {"x": bytes(3)}


# ---- alternate streams ----


def test_alternate_streams(image: ImageWriter) -> None:
    add(image, "x", b"main")
    for name in ("zone", "Alpha:$DATA", "beta:$data", "\x7f"):
        image.create_alternate_stream(f"x:{name}", len(name))
        image.write(name.encode())
    add(image, "d", attributes=DIRECTORY)
    image.create_alternate_stream("d:on a directory", 3)
    image.write(b"yes")
    image.create_alternate_stream("x:empty", 0)
    assert committed(image) == {"d": None, "x": b"main"}
    tree = read_tree(Path(image.directory) / "a.cim")
    assert list(tree["x"].streams.items()) == [
        ("Alpha", b"Alpha:$DATA"),
        ("beta", b"beta:$data"),
        ("empty", b""),
        ("zone", b"zone"),
        ("\x7f", b"\x7f"),
    ]
    assert tree["d"].streams == {"on a directory": b"yes"}


def test_stream_is_the_same_with_its_type(image: ImageWriter) -> None:
    add(image, "x")
    for name, data in (("S", b"first"), ("s:$DATA", b"second")):
        image.create_alternate_stream(f"x:{name}", len(data))
        image.write(data)
    image.create_alternate_stream("x:gone", 0)
    image.delete_path("x:GONE:$DATA")
    committed(image)
    assert read_tree(Path(image.directory) / "a.cim")["x"].streams == {"s": b"second"}


def test_stream_of_what_is_not_there(image: ImageWriter) -> None:
    for path in ("x:s", "d\\x:s"):
        with pytest.raises(errors.PathNotFoundError) as raised:
            image.create_alternate_stream(path, 0)
        assert raised.value.hresult == E_PATH


def test_streams_in_a_fork(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        add(image, "x", b"1")
        for name in "bdf":
            image.create_alternate_stream(f"x:{name}", 1)
            image.write(name.encode())
        image.commit()
    with writer(tmp_path, "a.cim", "b.cim") as image:
        image.create_alternate_stream("x:c", 1)
        image.write(b"C")
        image.create_alternate_stream("x:D", 1)
        image.write(b"D")
        image.delete_path("x:f")
        committed(image)
    assert read_tree(tmp_path / "a.cim")["x"].streams == {"b": b"b", "d": b"d", "f": b"f"}
    assert read_tree(tmp_path / "b.cim")["x"].streams == {"b": b"b", "c": b"C", "D": b"D"}
    with writer(tmp_path, "b.cim", "c.cim") as image:
        for name in "bcd":
            image.delete_path(f"x:{name}")
        committed(image)
    assert read_tree(tmp_path / "c.cim")["x"].streams == {}
