"""CimLayerWriter: operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from cimfs_ext.backupstream import BackupStreamWriter as Stream
from cimlayer import (
    CimLayerWriter,
    FileAttributes,
    FileBasicInfo,
    is_cim_layer,
)
from cimlayer.errors import (
    FormatError,
)
from cimlayer.layer.standard import HIVES
from support import layers
from support.layers import NULL_DACL, TIME, image_of
from support.layerwriters import DIRECTORY, EAS, FILE, OWNED, feed, made_base, put, root, writer  # noqa: F401  fixtures
from support.tars import FILETIME_OF_1970

LINK = bytes.fromhex("0c0000a0 1400 0000 0000 0200 0400 0200 01000000 7800 0000 7800 0000".replace(" ", ""))


def test_files_directories_links_streams_and_removals(writer: CimLayerWriter, root: Path) -> None:
    info = FileBasicInfo(TIME, TIME + 1, TIME + 2, TIME + 3, 0x23)
    put(writer, r"Files\new", b"content", info, security_descriptor=OWNED, extended_attributes=EAS)
    writer.add_alternate_stream(r"Files\new:zone:$DATA", 4)
    feed(writer, Stream.data(b"zone"))
    writer.add_link(r"Files\link", r"Files\x")
    writer.remove(r"Files\x")
    writer.remove(r"files\DIR")
    writer.remove(r"Files\never there")
    writer.remove(r"nor\this")
    writer.add(r"Files\symlink", FileBasicInfo.at(TIME, 0x420), 0, reparse_data=LINK)
    writer.close()
    image = image_of(root / "child")
    new = image[r"Files\new"]
    assert (new.data, new.attributes, new.sd, new.eas, new.streams) == (b"content", 0x23, OWNED, EAS, {"zone": b"zone"})
    assert (new.creation_time, new.last_access_time, new.last_write_time, new.change_time) == (
        TIME, TIME + 1, TIME + 2, TIME + 3,
    )  # fmt: skip
    assert (image[r"Files\link"].data, image[r"Files\symlink"].reparse) == (b"base x", LINK)
    assert not {r"Files\x", r"Files\dir", r"Files\dir\z"} & image.keys()
    assert image[r"Files\y"].data == b"base y"


@pytest.mark.parametrize("before", [None, "link", "remove"])
def test_write_with_nothing_to_write_to_is_an_error(writer: CimLayerWriter, root: Path, before: str | None) -> None:
    put(writer, r"Files\a", b"content")
    if before == "link":
        writer.add_link(r"Files\l", r"Files\x")
    else:
        writer.remove(r"Files\x")
    with pytest.raises(ValueError, match="nothing is open"):
        writer.write(b"x")
    writer.close()
    assert image_of(root / "child")[r"Files\a"].data == b"content"


@pytest.mark.parametrize("given", [False, True])
def test_metadata_comes_in_the_backup_stream(writer: CimLayerWriter, root: Path, given: bool) -> None:
    writer.add(r"Files\f", FILE, 7, *((OWNED, EAS) if given else ()))
    metadata = [Stream.links("other"), Stream.security(OWNED), Stream.extended_attributes(EAS)]
    feed(writer, *metadata, Stream.data(b"content"), Stream.alternate_stream("s", b"t" * 999), piece=5)
    writer.add(r"Files\l", FileBasicInfo.at(TIME, 0x420), 0, b"", b"", LINK if given else b"")
    feed(writer, Stream.reparse(LINK))
    writer.close()
    image = image_of(root / "child")
    entry = image[r"Files\f"]
    assert (entry.sd, entry.eas, entry.data, entry.streams) == (OWNED, EAS, b"content", {"s": b"t" * 999})
    assert image[r"Files\l"].reparse == LINK


def test_same_metadata_may_come_behind_the_data(writer: CimLayerWriter, root: Path) -> None:
    writer.add(r"Files\f", FILE, 7, OWNED)
    feed(writer, Stream.data(b"content"), Stream.security(OWNED))
    writer.close()
    assert image_of(root / "child")[r"Files\f"].sd == OWNED


BAD_STREAMS: dict[str, tuple[int, dict[str, bytes], list[Iterable[bytes]], str]] = {
    "another descriptor": (0, {"security_descriptor": OWNED}, [Stream.security(NULL_DACL)], "another security"),
    "other EAs": (0, {"extended_attributes": EAS}, [Stream.extended_attributes(EAS + b"\0")], "another EA"),
    "another link": (0, {"reparse_data": LINK}, [Stream.reparse(LINK[:-1])], "another reparse"),
    "late descriptor": (1, {}, [Stream.data(b"1"), Stream.security(OWNED)], "behind the data"),
    "too much": (1, {}, [Stream.data(b"12")], r"Files\\f: "),
    "too little": (3, {}, [Stream.data(b"12")], r"Files\\f: "),
    "nothing": (3, {}, [], r"Files\\f: "),
    "cut": (3, {}, [[b"\1\0\0\0"]], r"Files\\f: "),
    "unknown": (0, {}, [[b"\x63" + bytes(19)]], r"Files\\f: "),
}


@pytest.mark.parametrize("case", BAD_STREAMS)
def test_bad_backup_stream_is_named_and_nothing_is_left(writer: CimLayerWriter, root: Path, case: str) -> None:
    size, metadata, streams, reason = BAD_STREAMS[case]
    data = [b"".join(stream) for stream in streams]
    writer.add(r"Files\f", FILE, size, **metadata)
    with pytest.raises(FormatError, match=reason) as caught:
        for piece in data:
            writer.write(piece)
        writer.add(r"Files\next", FILE, 0)
    assert caught.value.what == r"Files\f"
    writer.close()  # the failure has abandoned the layer: there is nothing to commit
    assert not is_cim_layer(root / "child")
    assert not (root / "child").exists()
    with pytest.raises(ValueError, match="closed"):
        writer.add(r"Files\g", FILE, 0)


@pytest.mark.parametrize(
    ("size", "ranges"),
    [(0, []), (70_000, []), (70_000, [(0, b"a" * 70_000)]), (300_000, [(5, b"b" * 9), (200_000, b"c" * 50_000)])],
)
@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_sparse_shapes_become_whole_files(
    writer: CimLayerWriter, root: Path, size: int, ranges: list[tuple[int, bytes]], piece: int
) -> None:
    writer.add(r"Files\f", FileBasicInfo.at(TIME, 0x220), size)
    feed(writer, Stream.security(OWNED), Stream.sparse_data(size, ranges), piece=piece)
    writer.close()
    data = bytearray(size)
    for at, content in ranges:
        data[at : at + len(content)] = content
    entry = image_of(root / "child")[r"Files\f"]
    assert (entry.data, entry.attributes) == (bytes(data), 0x220)
    assert entry.stream.sparse == (size > 0 and not ranges)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_sparse_stream_has_its_size_though_it_comes_last(writer: CimLayerWriter, root: Path, piece: int) -> None:
    writer.add(r"Files\f", FILE, 5)
    feed(
        writer,
        Stream.data(b"whole"),
        Stream.sparse_alternate_stream("s", 5000, [(3, b"x"), (4000, b"yz")]),
        Stream.alternate_stream("t", b"plain"),
        piece=piece,
    )
    writer.close()
    entry = image_of(root / "child")[r"Files\f"]
    assert entry.data == b"whole"
    assert entry.streams == {"s": bytes(3) + b"x" + bytes(3996) + b"yz" + bytes(998), "t": b"plain"}


def test_huge_file_of_nothing_costs_nothing(writer: CimLayerWriter, root: Path) -> None:
    writer.add(r"Files\huge", FILE, 1 << 40)
    feed(writer, Stream.sparse_data(1 << 40, []))
    writer.close()
    assert sum(path.stat().st_size for path in (root / "cim-layers").iterdir()) < 1 << 22


def test_streams_take_nothing_but_data(writer: CimLayerWriter) -> None:
    put(writer, r"Files\f")
    writer.add_alternate_stream(r"Files\f:s", 0)
    with pytest.raises(FormatError, match="nothing but its data"):
        feed(writer, Stream.alternate_stream("t", b""))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (r"Files\nothing", "does not exist"),
        (r"no\such", "does not exist"),
        (r"Files\dir", "directory"),
        ("", "without a target"),
    ],
)
def test_bad_link_is_refused_and_the_writer_stays_usable(
    writer: CimLayerWriter, root: Path, target: str, reason: str
) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        writer.add_link(r"Files\x", target)
    assert caught.value.what == r"Files\x"
    writer.remove(r"Files\x")  # what was refused was not added
    writer.close()
    assert r"Files\x" not in image_of(root / "child")


def test_missing_parents_are_made(writer: CimLayerWriter, root: Path) -> None:
    put(writer, r"new\directory\file", b"content")
    writer.add_link(r"other\new\link", r"Files\x")
    writer.close()
    image = image_of(root / "child")
    assert (image[r"new\directory\file"].data, image[r"other\new\link"].data) == (b"content", b"base x")
    made = image[r"new\directory"]
    assert (made.attributes, made.sd, made.creation_time) == (0x10, NULL_DACL, FILETIME_OF_1970)


SYSTEM = HIVES[0].path


@pytest.mark.parametrize(
    "spelling",
    [
        *("Files//Windows///System32/config/SYSTEM", "./Files/./Windows/System32/config/SYSTEM"),
        *(SYSTEM + "\\", f"{SYSTEM}/", "\\" + SYSTEM, f"/{SYSTEM}", SYSTEM.replace("\\", "\\\\")),
    ],
)
def test_a_path_is_canonical_before_anything_looks_at_it(writer: CimLayerWriter, root: Path, spelling: str) -> None:
    put(writer, spelling, b"content")
    writer.add_link("Files//link/", spelling)
    with pytest.raises(FormatError, match="in place of a hard link"):
        writer.add(r".\files\LINK", FILE, 0)
    with pytest.raises(FormatError, match="stream on a file that is processed outside"):
        writer.add_alternate_stream(f"./{SYSTEM}:zone", 0)
    writer.close()
    image = image_of(root / "child")
    assert (image[SYSTEM].data, image[r"Files\link"].data) == (b"content", b"content")
    assert (root / "child" / SYSTEM.replace("\\", "/")).read_bytes() == b"content"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((r"Files\..\x", "component . or .."), (r"C:\x", "drive letter"), ("a\0b", "NUL"), ("Files/a*", "reserved")),
        *((r"Files\x:s", "colon"), ("", "without a name"), (r".\.", "without a name"), ("n" * 256, "255")),
        *(("/".join(["d" * 200] * 164), "32,767"), ("x" * 100_000, "32,767")),
    ],
)
def test_bad_name_is_refused_and_the_writer_stays_usable(
    writer: CimLayerWriter, root: Path, name: str, reason: str
) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        writer.add(name, FILE, 0)
    assert caught.value.what == name
    put(writer, r"Files\after", b"fine")
    writer.close()
    assert image_of(root / "child")[r"Files\after"].data == b"fine"


def test_the_root_directory_is_there_already(writer: CimLayerWriter, root: Path) -> None:
    writer.add("\\", DIRECTORY, 0)
    feed(writer, Stream.security(OWNED))
    writer.add(".", DIRECTORY, 0)
    writer.close()
    assert image_of(root / "child")[r"Files\x"].data == b"base x"


SYMLINK = FileBasicInfo.at(TIME, 0x420)


@pytest.mark.parametrize(("info", "reparse"), [(SYMLINK, LINK), (SYMLINK, b""), (FILE, LINK)])
def test_symbolic_link_in_place_of_a_standard_file_is_refused(
    writer: CimLayerWriter, root: Path, info: FileBasicInfo, reparse: bytes
) -> None:
    with pytest.raises(FormatError, match="a symbolic link in place of a file that is processed outside the image"):
        writer.add(SYSTEM, info, 0, reparse_data=reparse)
    writer.close()
    assert SYSTEM in image_of(root / "base")


def test_standard_file_that_turns_out_to_be_a_symbolic_link_is_refused(writer: CimLayerWriter) -> None:
    writer.add(SYSTEM, FILE, 0)
    with pytest.raises(FormatError, match="a symbolic link in place of a file that is processed outside the image"):
        feed(writer, Stream.reparse(LINK))


def test_malformed_descriptor_of_a_standard_file_is_refused(writer: CimLayerWriter) -> None:
    writer.add(SYSTEM, FILE, 0, b"no descriptor")
    with pytest.raises(FormatError, match="descriptor is malformed") as caught:
        writer.close()
    assert caught.value.what == SYSTEM


def test_a_file_called_utility_vm_is_none(writer: CimLayerWriter, root: Path) -> None:
    put(writer, "UtilityVM", b"content")
    writer.close()
    assert image_of(root / "child")["UtilityVM"].data == b"content"
    assert writer.utility_vm is None


@pytest.mark.parametrize(
    ("name", "info"), [("UtilityVM", DIRECTORY), (r"utilityvm\x", FILE), ("UtilityVM/d", DIRECTORY)]
)
def test_a_directory_utility_vm_or_what_lies_below_it_is_one(
    writer: CimLayerWriter, name: str, info: FileBasicInfo
) -> None:
    writer.add(name, info, 0)
    writer.close()
    assert writer.utility_vm == "kept"


def test_removal_hides_what_the_parents_have_and_nothing_else(writer: CimLayerWriter, root: Path) -> None:
    put(writer, r"Files\dir\new", b"new")
    put(writer, r"Files\x", b"own x")
    for path in (r"Files\dir", r"Files\x", "Files/y"):
        writer.remove(path)
    writer.close()
    image = image_of(root / "child")
    assert {path: entry.data for path, entry in image.items() if path.startswith("Files") and entry.data} == {
        r"Files\dir\new": b"new", r"Files\x": b"own x",
        **{hive.path: layers.hive(who=hive.name) for hive in HIVES},
    }  # fmt: skip


def test_removal_of_contents_leaves_the_directory(writer: CimLayerWriter, root: Path) -> None:
    put(writer, r"Files\dir\new", b"new")
    writer.remove_contents("Files/dir/")
    writer.remove_contents("no such directory")
    writer.close()
    image = image_of(root / "child")
    assert {path for path in image if path.startswith(r"Files\dir")} == {r"Files\dir", r"Files\dir\new"}


def test_paths_are_str_or_pure_paths(writer: CimLayerWriter, root: Path) -> None:
    writer.add(PurePosixPath("Files/new"), FileBasicInfo(TIME, file_attributes=FileAttributes.ARCHIVE), 0)
    writer.add_alternate_stream(PureWindowsPath("Files\\new:zone"), 0)
    writer.add_link(PureWindowsPath("Files\\link"), PurePosixPath("Files/x"))
    writer.remove(PurePosixPath("Files/dir"))
    for wrong in (b"Files\\x", None, 5):
        calls: list[Callable[[Any], object]] = [
            writer.remove,
            writer.remove_contents,
            lambda path: writer.add(path, FileBasicInfo(), 0),
            lambda path: writer.add_link(path, "Files\\x"),
            lambda path: writer.add_link("Files\\x", path),
            lambda path: writer.add_alternate_stream(path, 0),
        ]
        for call in calls:
            with pytest.raises(TypeError):
                call(wrong)
    writer.close()
    image = image_of(root / "child")
    assert image[r"Files\new"].streams == {"zone": b""}
    assert image[r"Files\link"].data == b"base x"
    assert r"Files\dir" not in image


def test_a_writer_shows_its_layer(writer: CimLayerWriter, root: Path) -> None:
    assert repr(writer) == f"<CimLayerWriter {str(root / 'child')!r}>"
    assert repr(writer.image) == f"<cimlayer.ImageWriter 'child.cim' in {str(root / 'cim-layers')!r}>"
    writer.abandon()
    assert repr(writer).startswith("<closed ")
