"""The calls of cimfs.h through ImageWriter: what each one does, refuses and leaves behind."""

import contextlib
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cimfs_ext import errors
from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from support import cimoracle
from support.images import (
    DIRECTORY,
    NULL_DACL,
    TIME,
    add,
    assert_sound,
    make_image,
    names_in,
    read_files,
    read_tree,
    snapshot,
    writer,
)

NOISE = random.Random(1).randbytes(9 << 20)
E_INVALIDARG, E_PATH, E_FILE, E_ACCESS = 0x80070057, 0x80070003, 0x80070002, 0x80070005
E_SHARING, E_EOF, E_EXISTS, E_CORRUPT = 0x80070020, 0x80070026, 0x80070050, 0x80070570


@pytest.fixture
def image(tmp_path: Path):
    with writer(tmp_path, None, "a.cim") as opened:
        yield opened


def committed(image: ImageWriter) -> dict[str, bytes | None]:
    image.commit()
    image.close()
    path = Path(image.directory) / image.name
    assert_sound(path)
    files = read_files(path)
    oracle = cimoracle.read_image(path.parent, path.name)
    assert {name: None if e.is_directory else e.data for name, e in oracle.items() if name} == files
    return files


def region_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("region_*"))


# ---- create, fork, extend ----


def test_new_image_is_empty(image: ImageWriter) -> None:
    assert committed(image) == {}


def test_new_image_has_three_regions_and_object_id_files(tmp_path: Path) -> None:
    with ImageReader(make_image(tmp_path, "a.cim", {})) as image:
        (own,) = image.region_sets
    assert own.count == 3
    assert names_in(tmp_path) == sorted([*own.file_names(), "a.cim"])


def test_fork_leaves_the_existing_image_as_it_is(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"d": None, "d\\x": b"old"})
    before = snapshot(tmp_path)
    make_image(tmp_path, "b.cim", {"d\\x": b"new", "d\\y": b"more"}, parent="a.cim")
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before
    assert read_files(tmp_path / "a.cim") == {"d": None, "d\\x": b"old"}
    assert read_files(tmp_path / "b.cim") == {"d": None, "d\\x": b"new", "d\\y": b"more"}


def test_fork_lists_the_region_sets_of_its_parents(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {})
    make_image(tmp_path, "b.cim", {}, parent="a.cim")
    with ImageReader(make_image(tmp_path, "c.cim", {}, parent="b.cim")) as third:
        sets = third.region_sets
    with ImageReader(tmp_path / "b.cim") as second:
        assert sets[:2] == second.region_sets
    assert len(set(sets)) == 3


@pytest.mark.parametrize("new", [None, "a.cim"], ids=["only the existing name", "the same name"])
def test_extend_replaces_the_image(tmp_path: Path, new: str | None) -> None:
    make_image(tmp_path, "a.cim", {"x": b"old", "y": b"kept"})
    names = names_in(tmp_path)
    with writer(tmp_path, "a.cim", new) as image:
        assert image.name == "a.cim"
        add(image, "x", b"new" * 3000)
        image.commit()
    assert read_files(tmp_path / "a.cim") == {"x": b"new" * 3000, "y": b"kept"}
    assert names_in(tmp_path) == names
    assert_sound(tmp_path / "a.cim")


def test_open_reader_keeps_seeing_the_state_before_an_extend(tmp_path: Path) -> None:
    path = make_image(tmp_path, "a.cim", {"x": b"old", "big": NOISE[:9000]})
    with ImageReader(path) as before:
        make_image(tmp_path, "a.cim", {"x": b"new", "y": NOISE[:99999]}, parent="a.cim")
        assert [entry.name for entry in before.listdir()] == ["big", "x"]
        assert before.read("x") == b"old"
        assert before.read("big") == NOISE[:9000]


def test_fork_of_an_extended_image(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"x": b"1"})
    make_image(tmp_path, "a.cim", {"y": NOISE[:8192]}, parent="a.cim")
    path = make_image(tmp_path, "b.cim", {"z": b"3", "copy": NOISE[:8192]}, parent="a.cim")
    assert read_files(path) == {"copy": NOISE[:8192], "x": b"1", "y": NOISE[:8192], "z": b"3"}
    assert_sound(path)


@pytest.mark.parametrize(
    ("existing", "new", "kind", "hresult"),
    [
        (None, None, errors.InvalidCallError, E_INVALIDARG),
        ("missing.cim", None, errors.PathNotFoundError, E_FILE),
        ("missing.cim", "b.cim", errors.PathNotFoundError, E_FILE),
        (None, "a.cim", errors.ImageExistsError, E_EXISTS),
        ("a.cim", "c.cim", errors.ImageExistsError, E_EXISTS),
        (None, "", errors.InvalidCallError, E_INVALIDARG),
        (None, "..", errors.InvalidCallError, E_INVALIDARG),
        (None, "d\\b.cim", errors.InvalidCallError, E_INVALIDARG),
        (None, "d/b.cim", errors.InvalidCallError, E_INVALIDARG),
        (None, "b.cim:s", errors.InvalidCallError, E_INVALIDARG),
        (None, "b\0.cim", errors.InvalidCallError, E_INVALIDARG),
        ("a?.cim", "b.cim", errors.InvalidCallError, E_INVALIDARG),
        (None, "b" * 256, errors.InvalidCallError, E_INVALIDARG),
        (None, "ü" * 128, errors.InvalidCallError, E_INVALIDARG),
    ],
)
def test_names_that_create_refuses(
    tmp_path: Path, existing: str | None, new: str | None, kind: type[OSError], hresult: int
) -> None:
    make_image(tmp_path, "a.cim", {})
    make_image(tmp_path, "c.cim", {})
    before = snapshot(tmp_path)
    with pytest.raises(kind) as raised:
        ImageWriter(tmp_path, existing, new)
    assert raised.value.hresult == hresult
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["b", "b.cim", "ü€𐍈.cim", "b" * 255, "b" * 251 + ".cim", " .cim "])
def test_names_that_create_takes(tmp_path: Path, name: str) -> None:
    assert read_files(make_image(tmp_path, name, {"x": b"1"})) == {"x": b"1"}


def test_leading_backslash_is_no_part_of_an_image_name(tmp_path: Path) -> None:
    make_image(tmp_path, "\\a.cim", {"x": b"1"})
    assert read_files(tmp_path / "a.cim") == {"x": b"1"}


def test_new_image_takes_no_other_file_for_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.cim.tmp").write_bytes(b"not ours")
    make_image(tmp_path, "a.cim", {"x": b"1"})
    make_image(tmp_path, "a.cim", {"x": b"2"}, parent="a.cim")
    assert (tmp_path / "a.cim.tmp").read_bytes() == b"not ours"


def test_containing_path_must_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(errors.PathNotFoundError) as raised:
            ImageWriter(path, None, "a.cim")
        assert raised.value.hresult == E_PATH


def test_directory_whose_name_is_not_utf8(tmp_path: Path) -> None:
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff\xfe"))
    directory.mkdir()
    assert read_files(make_image(directory, "a.cim", {"x": b"1"})) == {"x": b"1"}


@pytest.mark.parametrize("place", ["a symbolic link", "a directory", "a broken link"])
def test_name_taken_by_something_that_is_no_image(tmp_path: Path, place: str) -> None:
    if place == "a directory":
        (tmp_path / "b.cim").mkdir()
    elif place == "a symbolic link":
        (tmp_path / "b.cim").symlink_to(make_image(tmp_path, "a.cim", {}))
    else:
        (tmp_path / "b.cim").symlink_to("nowhere")
    with pytest.raises(errors.ImageExistsError):
        ImageWriter(tmp_path, None, "b.cim")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(errors.ImagePermissionError) as raised:
        ImageWriter(tmp_path, None, "a.cim")
    assert raised.value.hresult == E_ACCESS


def test_existing_image_that_cannot_be_read(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {})
    (tmp_path / "a.cim").write_bytes(b"no image at all")
    before = snapshot(tmp_path)
    for new in (None, "b.cim"):
        with pytest.raises(errors.CorruptImageError) as raised:
            ImageWriter(tmp_path, "a.cim", new)
        assert raised.value.hresult == E_CORRUPT
        assert "a.cim" in str(raised.value)
    assert snapshot(tmp_path) == before


# ---- files and directories ----


def test_create_file_replaces_a_file(image: ImageWriter) -> None:
    add(image, "x", b"first", reparse_data=struct.pack("<IHH", 0xA000000C, 0, 0))
    image.create_alternate_stream("x:s", 0)
    add(image, "X", b"second")
    assert committed(image) == {"X": b"second"}
    (node,) = read_tree(Path(image.directory) / "a.cim").values()
    assert (node.streams, node.reparse_data) == ({}, b"")


@pytest.mark.parametrize("forked", [False, True])
def test_file_replaces_a_directory_with_all_that_it_holds(tmp_path: Path, forked: bool) -> None:
    files = {"d": None, "d\\e": None, "d\\e\\x": b"1"}
    make_image(tmp_path, "p.cim", files if forked else {})
    with writer(tmp_path, "p.cim", "a.cim") as image:
        if not forked:
            for path, data in files.items():
                add(image, path, data or b"", attributes=DIRECTORY if data is None else 0)
        add(image, "d", b"file")
        with pytest.raises(errors.PathNotFoundError):
            image.create_file("d\\e\\y")
        assert committed(image) == {"d": b"file"}


def test_directory_replaces_a_file(image: ImageWriter) -> None:
    add(image, "x", b"1")
    add(image, "x", attributes=DIRECTORY)
    add(image, "x\\y", b"2")
    assert committed(image) == {"x": None, "x\\y": b"2"}


@pytest.mark.parametrize("forked", [False, True])
def test_directory_over_a_directory_keeps_its_children(tmp_path: Path, forked: bool) -> None:
    image = writer(tmp_path, None, "p.cim")
    add(image, "d", attributes=DIRECTORY | 2, creation_time=1)
    add(image, "d\\x", b"1")
    if forked:
        image.commit()
        image.close()
        image = writer(tmp_path, "p.cim", "a.cim")
    add(image, "D", attributes=DIRECTORY | 4, creation_time=5, security_descriptor=NULL_DACL + b"\1")
    add(image, "d\\y", b"2")
    assert committed(image) == {"d": None, "d\\x": b"1", "d\\y": b"2"}
    node = read_tree(tmp_path / image.name)["d"]
    assert (node.attributes, node.times[0]) == (DIRECTORY | 4, 5)
    assert node.security_descriptor == NULL_DACL + b"\1"


def test_parent_directory_must_exist(image: ImageWriter) -> None:
    add(image, "file", b"")
    for path in ("d\\x", "file\\x", "file\\d\\x"):
        with pytest.raises(errors.PathNotFoundError) as raised:
            image.create_file(path)
        assert raised.value.hresult == E_PATH
        assert raised.value.filename == path
    assert committed(image) == {"file": b""}


def test_leading_backslash_is_allowed(image: ImageWriter) -> None:
    add(image, "\\d", attributes=DIRECTORY)
    add(image, "\\d\\x", b"1")
    image.create_hard_link("\\d\\y", "\\D\\X")
    image.delete_path("\\d\\x")
    assert committed(image) == {"d": None, "d\\y": b"1"}


def test_names_ignore_case_and_keep_it(image: ImageWriter) -> None:
    add(image, "Größe", attributes=DIRECTORY)
    add(image, "GRÖßE\\ΣΑΣ", b"1")
    add(image, "größe\\ы", b"2")
    add(image, "größe\\Ы", b"3")
    files = committed(image)
    assert files == {"Größe": None, "Größe\\ΣΑΣ": b"1", "Größe\\Ы": b"3"}
    with ImageReader(Path(image.directory) / "a.cim") as reader:
        assert reader.read("gRÖßE\\σας".replace("ς", "Σ")) == b"1"


def test_case_is_that_of_single_code_units(image: ImageWriter) -> None:
    add(image, "ß", b"1")
    add(image, "SS", b"2")
    add(image, "\U00010428", b"3")  # a small letter outside the BMP: surrogates have no case
    add(image, "\U00010400", b"4")
    assert committed(image) == {"SS": b"2", "ß": b"1", "\U00010400": b"4", "\U00010428": b"3"}


@pytest.mark.parametrize(
    "name", ["𐍈🙂", "\ud800", "\udfffx", "a\udc80\ud83d", "\ufffe\uffff", "€" * 255, "𐍈" * 127 + "x"]
)
def test_unusual_names(image: ImageWriter, name: str) -> None:
    add(image, name, b"1")
    image.create_alternate_stream(f"{name}:{name}", 1)
    image.write(b"2")
    image.commit()
    with ImageReader(Path(image.directory) / "a.cim") as reader:
        assert [entry.name for entry in reader.listdir()] == [name]
        assert reader.read(name) == b"1"
        assert reader.read(name, name) == b"2"


BAD_PATHS = [
    "",
    "\\",
    "\\\\x",
    "x\\",
    "d\\\\x",
    ".",
    "..",
    "d\\.",
    "d\\..",
    "d\\..\\x",
    ".\\x",
    "x" * 256,
    "d\\" + "x" * 256,
    "𐍈" * 128,
    *(f"a{c}b" for c in '"*/<>?|\x01\x1f'),
    "d\\" + "x\\" * 16383 + "x",
    *(f"{c}\\x" for c in '"*/<>?|\x1f'),
]
BAD_STREAMS = [
    ":s",
    "x:",
    "x::",
    "x::$DATA",
    "x:s:",
    "x:s:$INDEX_ALLOCATION",
    "x:s:$DATA:",
    "x:s:t",
    "x:s\\t",
    "x:s/t",
    "x:\x01",
    "x:" + "s" * 256,
    "x:s*",
    "d:s\\x",
    "x:s:$DATAX",
]
CALLS: dict[str, Callable[[ImageWriter, str], object]] = {
    "create a file": lambda image, path: image.create_file(path),
    "create a directory": lambda image, path: image.create_file(path, attributes=DIRECTORY),
    "create a stream": lambda image, path: image.create_alternate_stream(path if ":" in path else path + ":s", 0),
    "link to": lambda image, path: image.create_hard_link("new", path),
    "link from": lambda image, path: image.create_hard_link(path, "x"),
    "delete": lambda image, path: image.delete_path(path),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("path", [*BAD_PATHS, *BAD_STREAMS], ids=lambda path: ascii(path[:40]))
def test_malformed_paths(image: ImageWriter, call: str, path: str) -> None:
    add(image, "x", b"1")
    add(image, "d", attributes=DIRECTORY)
    with pytest.raises(errors.InvalidCallError) as raised:
        CALLS[call](image, path)
    assert raised.value.hresult == E_INVALIDARG
    assert committed(image) == {"d": None, "x": b"1"}


@pytest.mark.parametrize("call", ["create a file", "link to", "link from"])
def test_stream_name_where_a_file_is_expected(image: ImageWriter, call: str) -> None:
    add(image, "x", b"1")
    with pytest.raises(errors.InvalidCallError):
        CALLS[call](image, "x:s")


@pytest.mark.parametrize("call", CALLS)
def test_nul_in_a_path(image: ImageWriter, call: str) -> None:
    with pytest.raises(errors.InvalidCallError) as raised:
        CALLS[call](image, "x\0y")
    assert raised.value.hresult == E_INVALIDARG


def test_directories_are_found_by_whole_components_of_the_path_used_last(image: ImageWriter) -> None:
    for directory in ("ab", "ab\\c", "ab\\c\\d", "abc"):
        image.create_file(directory, attributes=DIRECTORY)
    for path in ("ab\\1", "abc\\2", "ab\\c\\3", "ab\\c\\d\\4", "AB\\c\\5", "ab\\c\\d\\6"):
        add(image, path, path.encode())
    with pytest.raises(errors.PathNotFoundError):
        image.create_file("ab\\c\\d\\missing\\x")
    image.delete_path("ab\\c")
    with pytest.raises(errors.PathNotFoundError):
        image.create_file("ab\\c\\d\\x")
    image.create_file("ab\\c")
    with pytest.raises(errors.PathNotFoundError):
        image.create_file("ab\\c\\d\\x")
    assert committed(image) == {
        "ab": None,
        "ab\\1": b"ab\\1",
        "ab\\c": b"",
        "abc": None,
        "abc\\2": b"abc\\2",
    }


def test_longest_path_and_name(image: ImageWriter) -> None:
    path = ""
    while len(path) + 256 <= 32767 - 2:
        path += "x" * 255
        image.create_file(path, attributes=DIRECTORY)
        path += "\\"
    path += "y" * (32767 - len(path))
    assert 1 <= len(path) - path.rindex("\\") - 1 <= 255
    add(image, path, b"deep")
    with pytest.raises(errors.InvalidCallError):
        image.create_file(path + "z")
    assert committed(image)[path] == b"deep"


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


# ---- hard links ----


def test_hard_links_share_everything(image: ImageWriter) -> None:
    add(image, "d", attributes=DIRECTORY)
    add(image, "d\\x", b"data", creation_time=7)
    image.create_hard_link("y", "D\\X")
    image.create_alternate_stream("y:s", 2)
    image.write(b"ab")
    image.create_hard_link("z", "y")
    committed(image)
    tree = read_tree(Path(image.directory) / "a.cim")
    assert tree["d\\x"] == tree["y"] == tree["z"]
    assert tree["y"].streams == {"s": b"ab"}
    with ImageReader(Path(image.directory) / "a.cim") as reader:
        assert len({reader.stat(name).file_id for name in ("d\\x", "y", "z")}) == 1
        assert reader.stat("y").parent_id == reader.stat("d").file_id
        assert reader.verify().files == 1


def test_replacing_one_link_leaves_the_others(image: ImageWriter) -> None:
    add(image, "x", b"old")
    image.create_hard_link("y", "x")
    add(image, "x", b"new")
    assert committed(image) == {"x": b"new", "y": b"old"}


def test_hard_link_replaces_a_file(image: ImageWriter) -> None:
    add(image, "x", b"1")
    add(image, "y", b"2")
    image.create_hard_link("Y", "x")
    image.create_hard_link("X", "x")
    assert committed(image) == {"X": b"1", "Y": b"1"}


def test_hard_link_to_a_directory(image: ImageWriter) -> None:
    add(image, "d", attributes=DIRECTORY)
    with pytest.raises(errors.ImagePermissionError) as raised:
        image.create_hard_link("x", "d")
    assert raised.value.hresult == E_ACCESS
    assert committed(image) == {"d": None}


@pytest.mark.parametrize(("new", "existing"), [("y", "missing"), ("d\\y", "x"), ("y", "x\\z"), ("x\\y", "x")])
def test_hard_link_without_target_or_directory(image: ImageWriter, new: str, existing: str) -> None:
    add(image, "x", b"1")
    with pytest.raises(errors.PathNotFoundError) as raised:
        image.create_hard_link(new, existing)
    assert raised.value.hresult == E_PATH
    assert committed(image) == {"x": b"1"}


def test_hard_link_to_a_file_of_the_parent(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"d": None, "d\\x": b"1"})
    with writer(tmp_path, "a.cim", "b.cim") as image:
        image.create_hard_link("y", "d\\x")
        image.delete_path("d")
        assert committed(image) == {"y": b"1"}


# ---- delete ----


def test_delete_files_links_and_trees(image: ImageWriter) -> None:
    for path in ("d", "d\\e", "keep"):
        add(image, path, attributes=DIRECTORY)
    for path in ("d\\x", "d\\e\\y", "keep\\z", "w"):
        add(image, path, path.encode())
    image.create_hard_link("link", "d\\x")
    image.create_hard_link("other", "w")
    image.delete_path("W")
    image.delete_path("D")
    assert committed(image) == {"keep": None, "keep\\z": b"keep\\z", "link": b"d\\x", "other": b"w"}


@pytest.mark.parametrize("path", ["missing", "d\\missing", "x\\y", "missing\\x", "x:missing", "missing:s"])
def test_delete_of_what_is_not_there(image: ImageWriter, path: str) -> None:
    add(image, "d", attributes=DIRECTORY)
    add(image, "x", b"1")
    with pytest.raises(errors.PathNotFoundError) as raised:
        image.delete_path(path)
    assert raised.value.hresult == E_PATH
    assert committed(image) == {"d": None, "x": b"1"}


def test_deleted_directory_can_be_made_anew(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"d": None, "d\\e": None, "d\\e\\old": b"1"})
    with writer(tmp_path, "a.cim", "b.cim") as image:
        add(image, "d\\e\\added", b"2")
        image.delete_path("d")
        with pytest.raises(errors.PathNotFoundError):
            image.create_file("d\\e\\late")
        add(image, "d", attributes=DIRECTORY)
        add(image, "d\\e", attributes=DIRECTORY)
        add(image, "d\\e\\new", b"3")
        assert committed(image) == {"d": None, "d\\e": None, "d\\e\\new": b"3"}


def test_last_child_can_be_deleted(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"d": None, "d\\x": b"1"})
    with writer(tmp_path, "a.cim", "b.cim") as image:
        image.delete_path("d\\x")
        assert committed(image) == {"d": None}
    assert read_files(make_image(tmp_path, "c.cim", {"d\\y": b"2"}, parent="b.cim")) == {
        "d": None,
        "d\\y": b"2",
    }


# ---- commit and close ----


def test_nothing_is_visible_before_the_commit(image: ImageWriter, tmp_path: Path) -> None:
    add(image, "x", NOISE)
    assert not (tmp_path / "a.cim").exists()
    image.commit()
    assert (tmp_path / "a.cim").exists()


def test_after_the_commit_only_close_is_allowed(image: ImageWriter) -> None:
    add(image, "x", b"1")
    image.commit()
    for call in (*CALLS.values(), lambda image, _: image.commit()):
        with pytest.raises(errors.InvalidCallError) as raised:
            call(image, "x")
        assert raised.value.hresult == E_INVALIDARG
    assert not image.closed
    image.close()
    assert read_files(Path(image.directory) / "a.cim") == {"x": b"1"}


def test_closed_image_takes_no_calls(image: ImageWriter) -> None:
    image.close()
    image.close()
    assert image.closed
    for call in (*CALLS.values(), lambda image, _: image.commit(), lambda image, _: image.write(b"")):
        with pytest.raises(ValueError, match="closed"):
            call(image, "x")


@pytest.mark.parametrize("parent", [None, "p.cim"])
@pytest.mark.parametrize("open_stream", [False, True])
def test_close_without_commit_leaves_nothing(tmp_path: Path, parent: str | None, open_stream: bool) -> None:
    make_image(tmp_path, "p.cim", {"x": b"1"})
    before = snapshot(tmp_path)
    with writer(tmp_path, parent, "a.cim") as image:
        add(image, "y", NOISE)
        if not open_stream:
            image.close_stream()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("first", [b"1", NOISE[:4096], NOISE[: (2 << 20) + 5]], ids=len)
def test_abandoned_extend_cuts_the_regions_back(tmp_path: Path, first: bytes) -> None:
    make_image(tmp_path, "a.cim", {"x": first})
    before = snapshot(tmp_path)
    with writer(tmp_path, "a.cim") as image:
        for size in (1, 4000, 5000, 3 << 20):
            add(image, f"{size}", NOISE[1 : 1 + size])
        image.delete_path("x")
    assert snapshot(tmp_path) == before
    assert_sound(tmp_path / "a.cim")


def test_dropped_image_is_abandoned(tmp_path: Path) -> None:
    image = writer(tmp_path, None, "a.cim")
    add(image, "x", NOISE)
    del image
    assert names_in(tmp_path) == []


def test_an_image_has_one_writer(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as first:
        with pytest.raises(errors.ImageBusyError) as raised:
            writer(tmp_path, None, "a.cim")
        assert raised.value.hresult == E_SHARING
        with writer(tmp_path, None, "b.cim") as beside:
            beside.commit()
        first.commit()
        with pytest.raises(errors.ImageExistsError):
            writer(tmp_path, None, "a.cim")
        with writer(tmp_path, "a.cim", "c.cim") as fork:
            fork.commit()
    for name in ("a.cim", "b.cim", "c.cim"):
        assert_sound(tmp_path / name)
    assert not list(tmp_path.glob("image_*"))


def test_what_is_forked_is_not_extended_meanwhile_nor_the_other_way_round(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"x": b"1"})
    forks = (writer(tmp_path, "a.cim", "b.cim"), writer(tmp_path, "a.cim", "c.cim"))
    with forks[0], forks[1], pytest.raises(errors.ImageBusyError):
        writer(tmp_path, "a.cim")
    with writer(tmp_path, "a.cim"):
        for arguments in (("a.cim", "b.cim"), ("a.cim",)):
            with pytest.raises(errors.ImageBusyError):
                writer(tmp_path, *arguments)


def test_an_image_that_was_not_committed_leaves_no_draft(tmp_path: Path) -> None:
    for arguments in ((None, "a.cim"), ("missing.cim", "a.cim")):
        with contextlib.suppress(errors.PathNotFoundError), writer(tmp_path, *arguments):
            pass
    assert not list(tmp_path.iterdir())


def test_a_claim_dies_with_its_process(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from cimfs_ext.image import ImageWriter
        image = ImageWriter(sys.argv[1], None, "a.cim")
        print("ready", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(errors.ImageBusyError):
            writer(tmp_path, None, "a.cim")
        child.send_signal(signal.SIGKILL)
    assert read_files(make_image(tmp_path, "a.cim", {"x": b"1"})) == {"x": b"1"}


def test_extend_after_a_writer_was_killed(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"x": b"1"})
    for region in tmp_path.glob("region_*"):
        with region.open("ab") as file:
            file.write(b"left behind" * 1000)
    for name in [path.name for path in tmp_path.glob("objectid_*")]:
        (tmp_path / f"{name}.tmp").write_bytes(b"left behind")
    make_image(tmp_path, "a.cim", {"y": b"2", "z": NOISE[:9999]}, parent="a.cim")
    assert read_files(tmp_path / "a.cim") == {"x": b"1", "y": b"2", "z": NOISE[:9999]}
    assert_sound(tmp_path / "a.cim")
    assert not list(tmp_path.glob("*.tmp"))


def test_commit_with_sync(tmp_path: Path) -> None:
    with ImageWriter(tmp_path, None, "a.cim") as image:
        add(image, "x", b"1")
        image.commit()
    assert read_files(tmp_path / "a.cim") == {"x": b"1"}


# ---- reproducible images ----


def seeded(directory: Path, name: str, seed: bytes, parent: str | None = None) -> dict[str, bytes]:
    directory.mkdir(exist_ok=True)
    with ImageWriter(directory, parent, name, sync=False, time=TIME, seed=seed) as image:
        add(image, f"d{len(seed)}", attributes=DIRECTORY)
        for i in range(50):
            add(image, f"{i}", NOISE[i : i + 100 * i])
        image.create_alternate_stream("7:s", 3)
        image.write(b"abc")
        image.create_hard_link("link", "8")
        image.commit()
    return snapshot(directory)


def test_seed_makes_identical_images(tmp_path: Path) -> None:
    first = seeded(tmp_path / "1", "a.cim", b"seed")
    assert seeded(tmp_path / "2", "a.cim", b"seed") == first
    assert seeded(tmp_path / "1", "b.cim", b"seed2", "a.cim") == seeded(tmp_path / "2", "b.cim", b"seed2", "a.cim")


def test_region_set_depends_on_seed_parent_and_name(tmp_path: Path) -> None:
    sets = []
    for directory, name, seed, parent in (
        ("1", "a.cim", b"seed", None),
        ("1", "b.cim", b"seed", None),
        ("1", "c.cim", b"other", None),
        ("1", "d.cim", b"seed", "a.cim"),
        ("1", "e.cim", b"seed", "b.cim"),
        ("2", "d.cim", b"seed", None),
    ):
        seeded(tmp_path / directory, name, seed, parent)
        with ImageReader(tmp_path / directory / name) as image:
            sets.append(image.region_sets[-1].set_id)
    assert len(set(sets)) == len(sets)
    assert {set_id.version for set_id in sets} == {4}


def test_without_a_seed_region_sets_differ(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    with (
        ImageReader(make_image(tmp_path / "1", "a.cim", {})) as first,
        ImageReader(make_image(tmp_path / "2", "a.cim", {})) as second,
    ):
        assert first.region_sets != second.region_sets


# ---- sharing ----


def pieces(image: ImageWriter, path: str, data: bytes, piece: int) -> None:
    image.create_file(path, size=len(data))
    for at in range(0, len(data), piece):
        image.write(data[at : at + piece])


@pytest.mark.parametrize("piece", [1 << 30, 1000, 100_000])
@pytest.mark.parametrize("size", [100, 4095, 4096, 300_000, (2 << 20) + 3])
def test_equal_content_is_stored_once(tmp_path: Path, size: int, piece: int) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        for i in range(5):
            pieces(image, f"{i}", NOISE[:size], piece)
            pieces(image, f"between{i}", NOISE[i + 1 : 11 + i], 3)
        assert set(committed(image).values()) == {NOISE[:size], *(NOISE[i + 1 : 11 + i] for i in range(5))}
    assert region_bytes(tmp_path) < 150_000 + size + 4096


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("piece", [1 << 30, 1000])
@pytest.mark.parametrize("size", [100, 4095, 4096, 300_000])
def test_content_of_all_parents_is_shared(tmp_path: Path, size: int, piece: int, extend: bool) -> None:
    make_image(tmp_path, "a.cim", {"x": NOISE[:size]})
    make_image(tmp_path, "b.cim", {"y": NOISE[9 : 9 + size]}, parent="a.cim")
    before = region_bytes(tmp_path)
    with writer(tmp_path, "b.cim", None if extend else "c.cim") as image:
        pieces(image, "x2", NOISE[:size], piece)
        pieces(image, "y2", NOISE[9 : 9 + size], piece)
        assert committed(image) == {
            "x": NOISE[:size],
            "x2": NOISE[:size],
            "y": NOISE[9 : 9 + size],
            "y2": NOISE[9 : 9 + size],
        }
    assert region_bytes(tmp_path) - before < 4096


def entries_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    table, count = struct.unpack_from("<II", data, 40)
    return [data[table + 40 * i : table + 40 * i + 40] for i in range(count)]


def rewrite_ids(path: Path, entries: list[bytes], table: int = 48) -> None:
    header = bytearray(path.read_bytes()[:48])
    struct.pack_into("<II", header, 40, table, len(entries))
    path.write_bytes(header + bytes(table - 48) + b"".join(entries))


FOREIGN = struct.pack("<Q24sQ", 5000, b"f" * 24, 4096)
ID_TABLES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "unsorted": lambda entries: entries[::-1],
    "foreign entries among ours": lambda entries: [FOREIGN, *entries, FOREIGN],
    "only foreign entries": lambda entries: [entry[:8] + bytes(8) + entry[16:] for entry in entries],
    "wrong offsets": lambda entries: [entry[:32] + struct.pack("<Q", 4096 * i) for i, entry in enumerate(entries)],
    "wild offsets": lambda entries: [entry[:32] + struct.pack("<Q", 2**64 - 1 - i) for i, entry in enumerate(entries)],
    "offsets beyond the end": lambda entries: [entry[:32] + struct.pack("<Q", 1 << 40) for entry in entries],
    "wrong lengths": lambda entries: [struct.pack("<Q", 2**64 - 1) + entry[8:] for entry in entries],
    "digests swapped": lambda entries: [
        entry[:8] + other[8:32] + entry[32:] for entry, other in zip(entries, entries[::-1], strict=True)
    ],
    "each entry many times": lambda entries: [entry for entry in entries for _ in range(40)],
    "no entries": lambda entries: [],
}


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("change", ID_TABLES)
def test_object_ids_of_a_parent_are_only_hints(tmp_path: Path, change: str, extend: bool) -> None:
    files: dict[str, bytes | None] = {f"{i}": NOISE[i * 10 : i * 10 + 150 * i] for i in range(100)}
    make_image(tmp_path, "a.cim", files)
    for path in tmp_path.glob("objectid_*"):
        rewrite_ids(path, ID_TABLES[change](entries_of(path)), 48 + 13)
    with writer(tmp_path, "a.cim", None if extend else "b.cim") as image:
        for name, data in files.items():
            pieces(image, f"copy{name}", data or b"", 1 << 30 if int(name) % 2 else 999)
            pieces(image, f"other{name}", (data or b"")[::-1], 777)
        image.commit()
    expected = dict(files)
    expected.update({f"copy{name}": data for name, data in files.items()})
    expected.update({f"other{name}": (data or b"")[::-1] for name, data in files.items()})
    assert read_files(tmp_path / image.name) == expected


@pytest.mark.parametrize("change", ["unsorted", "foreign entries among ours", "each entry many times"])
def test_sharing_survives_odd_id_tables(tmp_path: Path, change: str) -> None:
    files: dict[str, bytes | None] = {f"{i}": NOISE[i * 10_000 : (i + 1) * 10_000] for i in range(200)}
    make_image(tmp_path, "a.cim", files)
    for path in tmp_path.glob("objectid_*"):
        rewrite_ids(path, ID_TABLES[change](entries_of(path)))
    before = region_bytes(tmp_path)
    make_image(tmp_path, "b.cim", {f"copy{name}": data for name, data in files.items()}, parent="a.cim")
    assert region_bytes(tmp_path) - before < 200_000


@pytest.mark.parametrize("damage", [b"", b"x" * 47, b"cimfile1" + bytes(40)])
def test_damaged_object_id_file_costs_sharing_alone(tmp_path: Path, damage: bytes) -> None:
    make_image(tmp_path, "a.cim", {"x": NOISE[:9999]})
    for path in tmp_path.glob("objectid_*"):
        path.write_bytes(damage)
    path = make_image(tmp_path, "b.cim", {"y": NOISE[:9999]}, parent="a.cim")
    assert read_files(path) == {"x": NOISE[:9999], "y": NOISE[:9999]}


def test_missing_object_id_files_cost_sharing_alone(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"x": NOISE[:9999]})
    for path in tmp_path.glob("objectid_*"):
        path.unlink()
    make_image(tmp_path, "a.cim", {"y": NOISE[:9999]}, parent="a.cim")
    assert read_files(tmp_path / "a.cim") == {"x": NOISE[:9999], "y": NOISE[:9999]}


@pytest.mark.parametrize("size", [3000, 30_000])
def test_id_that_points_to_where_the_next_object_will_lie(tmp_path: Path, size: int) -> None:
    """What a commit leaves that failed between its renames: IDs that are new, regions that were cut back."""
    make_image(tmp_path, "a.cim", {"x": b"1"})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    make_image(tmp_path, "a.cim", {"y": NOISE[:size], "z": NOISE[1 : size + 1]}, parent="a.cim")
    for path, data in before.items():
        if not path.name.startswith("objectid_"):
            path.write_bytes(data)
    with writer(tmp_path, "a.cim") as image:
        pieces(image, "y", NOISE[:size], 1000)
        pieces(image, "w", NOISE[5 : size + 5], 1000)
        assert committed(image) == {"w": NOISE[5 : size + 5], "x": b"1", "y": NOISE[:size]}


def test_many_generations(tmp_path: Path) -> None:
    expected: dict[str, bytes | None] = {}
    parent = None
    for i in range(12):
        expected[f"{i}"] = NOISE[i : i + 5000]
        make_image(tmp_path, f"{i}.cim", {f"{i}": NOISE[i : i + 5000]}, parent=parent)
        parent = f"{i}.cim"
    assert read_files(tmp_path / "11.cim") == dict(sorted(expected.items()))
    assert_sound(tmp_path / "11.cim")


# ---- copy-on-write ----


def test_fork_writes_only_what_changed(tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {f"d{i}": None for i in range(60)}
    files |= {f"d{i}\\{j}": b"%d %d" % (i, j) for i in range(60) for j in range(100)}
    make_image(tmp_path, "a.cim", files)
    before = region_bytes(tmp_path)
    make_image(tmp_path, "b.cim", {"d7\\new": b"x"}, parent="a.cim")
    assert region_bytes(tmp_path) - before < 2 * 96 * 1024 + 10_000
    assert read_files(tmp_path / "b.cim") == dict(sorted({**files, "d7\\new": b"x"}.items()))


def test_file_ids_go_on_where_the_parent_stopped(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"x": b"1", "y": b"2"})
    with writer(tmp_path, "a.cim", "b.cim") as image:
        image.delete_path("y")
        add(image, "z", b"3")
        image.commit()
    with ImageReader(tmp_path / "a.cim") as old, ImageReader(tmp_path / "b.cim") as new:
        assert new.stat("x").file_id == old.stat("x").file_id
        assert new.stat("z").file_id == old.stat("y").file_id + 1
