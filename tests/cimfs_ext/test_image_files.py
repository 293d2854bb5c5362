"""ImageWriter: files and directories, hard links, delete."""

import struct
from pathlib import Path

import pytest

from cimfs_ext import errors
from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from support.images import (
    DIRECTORY,
    NULL_DACL,
    add,
    make_image,
    read_files,
    read_tree,
    writer,
)
from support.written import (
    CALLS,
    E_ACCESS,
    E_INVALIDARG,
    E_PATH,
    committed,
    image,  # noqa: F401  fixtures
)

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
    "x\\\\",
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
    *(f"a{c}b" for c in '"*<>?|\x01\x1f'),
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
