"""The layer writer: what goes where, in which order, and what is left when something fails."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from cimfs_ext.backupstream import BackupStreamWriter as Stream
from cimfs_ext.entries import RegionSet
from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import read_region_sets
from cimlayer import (
    CimLayerWriter,
    FileBasicInfo,
    ImageReader,
    destroy_cim_layer,
    get_cim_dir_from_layer,
    get_cim_name_from_layer,
    get_cim_path_from_layer,
    is_cim_layer,
)
from cimlayer.errors import (
    CorruptImageError,
    FormatError,
    ImagePermissionError,
    PathNotFoundError,
)
from cimlayer.layer.garbage import broken_images, collect_garbage
from cimlayer.layer.standard import HIVES, STANDARD_FILES
from support import layers
from support.layers import NULL_DACL, TIME, image_of, snapshot
from support.tars import FILETIME_OF_1970

FILE = FileBasicInfo.at(TIME, 0x20)
DIRECTORY = FileBasicInfo.at(TIME, 0x10)
OWNED = bytes.fromhex("0100048014000000000000000000000000000000010200000000000520000000 20020000".replace(" ", ""))
EAS = bytes([0, 0, 0, 0, 0, 1, 1, 0]) + b"A\0v"
LINK = bytes.fromhex("0c0000a0 1400 0000 0000 0200 0400 0200 01000000 7800 0000 7800 0000".replace(" ", ""))


def directories(writer: CimLayerWriter, path: str) -> None:
    parts = path.split("\\")
    for n in range(1, len(parts)):
        writer.add("\\".join(parts[:n]), DIRECTORY, 0)


def put(writer: CimLayerWriter, path: str, data: bytes = b"", info: FileBasicInfo = FILE, **metadata: bytes) -> None:
    writer.add(path, info, len(data), **metadata)
    feed(writer, Stream.data(data))


def feed(writer: CimLayerWriter, *streams: Iterable[bytes], piece: int = 1 << 20) -> None:
    data = b"".join(b"".join(stream) for stream in streams)
    for at in range(0, len(data), piece):
        assert writer.write(data[at : at + piece]) == len(data[at : at + piece])


def base_writer(path: Path) -> CimLayerWriter:
    writer = CimLayerWriter(path, sync=False, reproducible=True)
    directories(writer, HIVES[0].path)
    for hive in HIVES:
        put(writer, hive.path, layers.hive(who=hive.name))
    return writer


@pytest.fixture(scope="module")
def made_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layers")
    with base_writer(root / "base") as writer:
        put(writer, r"Files\x", b"base x")
        put(writer, r"Files\y", b"base y")
        writer.add(r"Files\dir", DIRECTORY, 0)
        put(writer, r"Files\dir\z", b"base z")
    return root


@pytest.fixture
def root(made_base: Path, tmp_path: Path) -> Path:
    shutil.copytree(made_base, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def writer(root: Path) -> CimLayerWriter:
    return CimLayerWriter(root / "child", [root / "base"], sync=False, reproducible=True)


# ---- where things lie ----


def test_image_lies_beside_the_layer_directory(tmp_path: Path) -> None:
    layer = tmp_path / "snapshots" / "7"
    assert get_cim_dir_from_layer(layer) == tmp_path / "snapshots" / "cim-layers"
    assert get_cim_name_from_layer(str(layer)) == "7.cim"
    assert get_cim_path_from_layer(f"{layer}/") == tmp_path / "snapshots" / "cim-layers" / "7.cim"
    assert not is_cim_layer(layer)


def test_relative_layer_path_means_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert get_cim_path_from_layer("7") == tmp_path / "cim-layers" / "7.cim"


def test_the_root_of_all_is_no_layer() -> None:
    with pytest.raises(ValueError, match="not the path of a layer"):
        get_cim_path_from_layer("/")


def test_is_cim_layer_when_the_image_is_there(made_base: Path) -> None:
    assert is_cim_layer(made_base / "base")
    assert not is_cim_layer(made_base / "other")


# ---- a base layer ----


def test_base_layer_leaves_what_layer_md_lists(made_base: Path) -> None:
    names = {name for name, (kind, _) in snapshot(made_base / "base").items() if kind == "file"}
    assert names == {
        "layout", "blank-base.vhdx", "blank.vhdx",
        *(hive.path.replace("\\", "/") for hive in HIVES), *(hive.base_path.replace("\\", "/") for hive in HIVES),
    }  # fmt: skip
    assert (made_base / "base" / "layout").read_bytes() == b"vhd-with-hives\n"


def test_base_hives_are_hard_links_in_the_directory_and_in_the_image(made_base: Path) -> None:
    image = image_of(made_base / "base")
    for hive in HIVES:
        here, there = (made_base / "base" / path.replace("\\", "/") for path in (hive.path, hive.base_path))
        assert here.samefile(there)
        assert image[hive.path].file_id == image[hive.base_path].file_id
        assert image[hive.path].data == here.read_bytes() == layers.hive(who=hive.name)


def test_layout_is_in_the_image(made_base: Path) -> None:
    entry = image_of(made_base / "base")["layout"]
    assert (entry.data, entry.attributes, entry.sd) == (b"vhd-with-hives\n", 0, NULL_DACL)


@pytest.mark.parametrize("missing", [["SAM"], ["SYSTEM", "DEFAULT"], [hive.name for hive in HIVES]])
def test_missing_hives_are_named_and_nothing_is_left(tmp_path: Path, missing: list[str]) -> None:
    writer = CimLayerWriter(tmp_path / "base", sync=False)
    directories(writer, HIVES[0].path)
    for hive in HIVES:
        if hive.name not in missing:
            put(writer, hive.path, layers.hive(who=hive.name))
    with pytest.raises(FormatError) as caught:
        writer.close()
    assert "layer base" in str(caught.value)
    assert {hive.name for hive in HIVES if hive.path in str(caught.value)} == set(missing)
    assert list(tmp_path.iterdir()) == []


def test_base_hive_is_linked_whatever_it_holds(tmp_path: Path) -> None:
    writer = base_writer(tmp_path / "base")
    put(writer, HIVES[2].path, b"no hive")
    writer.close()
    assert (tmp_path / "base" / "Hives" / "SAM_BASE").read_bytes() == b"no hive"


def test_hives_that_lay_there_before_do_not_count(tmp_path: Path) -> None:
    for hive in HIVES:
        stale = tmp_path / "base" / hive.path.replace("\\", "/")
        stale.parent.mkdir(parents=True, exist_ok=True)
        stale.write_bytes(layers.hive())
    writer = CimLayerWriter(tmp_path / "base", sync=False)
    with pytest.raises(FormatError, match="a base layer without"):
        writer.close()


# ---- standard files ----


@pytest.mark.parametrize("change", [str, str.upper, str.lower, str.swapcase])
@pytest.mark.parametrize("path", [path for path in STANDARD_FILES if "DELTA" not in path and "UtilityVM" not in path])
def test_standard_file_goes_to_the_directory_in_any_case(
    writer: CimLayerWriter, root: Path, path: str, change: Callable[[str], str]
) -> None:
    put(writer, change(path), b"content", security_descriptor=OWNED)
    written = root / "child" / change(path).replace("\\", "/")
    writer.close()
    assert written.read_bytes() == b"content"
    found = [entry for name, entry in image_of(root / "child").items() if name.upper() == path.upper()]
    assert [(entry.data, entry.sd, entry.attributes) for entry in found] == [(b"content", OWNED, 0x20)]


def test_leading_backslash_makes_no_other_file(writer: CimLayerWriter, root: Path) -> None:
    put(writer, "\\" + HIVES[0].path, b"content")
    writer.close()
    assert (root / "child" / HIVES[0].path.replace("\\", "/")).read_bytes() == b"content"


def test_what_only_looks_standard_goes_to_the_image(writer: CimLayerWriter, root: Path) -> None:
    for path in (r"Files\Windows\System32\config\SYSTEM.LOG1", r"Hives\SYSTEM_BASE2"):
        put(writer, path, b"content")
    writer.add(r"Files\Windows\System32\config\SAM", DIRECTORY, 0)
    writer.close()
    assert snapshot(root / "child") == {}


def test_standard_file_takes_its_metadata_from_the_stream(writer: CimLayerWriter, root: Path) -> None:
    writer.add(HIVES[0].path, FILE, 5)
    feed(writer, Stream.security(OWNED), Stream.extended_attributes(EAS), Stream.data(b"12345"), piece=3)
    writer.close()
    entry = image_of(root / "child")[HIVES[0].path]
    assert (entry.sd, entry.eas, entry.data) == (OWNED, EAS, b"12345")


def test_sparse_standard_file_is_whole(writer: CimLayerWriter, root: Path) -> None:
    writer.add(HIVES[0].path, FILE, 100_000)
    feed(writer, Stream.sparse_data(100_000, [(5000, b"here"), (90_000, b"there")]))
    writer.close()
    data = bytes(5000) + b"here" + bytes(84_996) + b"there" + bytes(9995)
    assert (root / "child" / HIVES[0].path.replace("\\", "/")).read_bytes() == data
    assert image_of(root / "child")[HIVES[0].path].data == data


def test_pending_operations_are_applied_in_order_when_the_layer_is_closed(writer: CimLayerWriter, root: Path) -> None:
    put(writer, HIVES[0].path, b"first")
    writer.add_link(r"Files\one", HIVES[0].path)
    put(writer, HIVES[1].path, b"second")
    writer.add_link(r"Files\two", HIVES[1].path.upper())
    writer.add_link(r"Files\three", r"FILES\TWO")
    (root / "child" / HIVES[0].path.replace("\\", "/")).write_bytes(b"changed before the close")
    writer.close()
    image = image_of(root / "child")
    assert image[r"Files\one"].data == b"changed before the close"
    assert image[r"Files\one"].file_id == image[HIVES[0].path].file_id
    assert {image[rf"Files\{name}"].file_id for name in ("two", "three")} == {image[HIVES[1].path].file_id}


@pytest.mark.parametrize(
    "call",
    [
        lambda writer: writer.add_link(HIVES[0].path.lower(), r"Files\x"),
        lambda writer: writer.add_alternate_stream(HIVES[0].path + ":zone", 1),
        lambda writer: writer.add_alternate_stream(HIVES[0].path.upper() + ":zone:$DATA", 1),
    ],
)
def test_refused_call_on_a_standard_file_leaves_the_writer_usable(
    writer: CimLayerWriter, root: Path, call: Callable[[CimLayerWriter], None]
) -> None:
    put(writer, HIVES[0].path, b"content")
    with pytest.raises(FormatError, match="processed outside the image"):
        call(writer)
    put(writer, r"Files\after", b"fine")
    writer.close()
    image = image_of(root / "child")
    assert (image[HIVES[0].path].data, image[r"Files\after"].data) == (b"content", b"fine")


def test_stream_of_a_standard_file_in_its_backup_stream_is_refused(writer: CimLayerWriter) -> None:
    writer.add(HIVES[0].path, FILE, 1)
    with pytest.raises(FormatError, match="processed outside the image"):
        feed(writer, Stream.data(b"1"), Stream.alternate_stream("zone", b"2"))


def test_stream_on_a_pending_link_is_refused(writer: CimLayerWriter, root: Path) -> None:
    put(writer, HIVES[0].path, b"content")
    writer.add_link(r"Files\x", HIVES[0].path)  # in place of the parent's file, which is in the image still
    with pytest.raises(FormatError, match="processed outside the image"):
        writer.add_alternate_stream(r"files\X:zone", 1)
    writer.close()
    assert image_of(root / "child")[r"Files\x"].data == b"content"


def test_nothing_takes_the_place_of_a_pending_link(writer: CimLayerWriter) -> None:
    put(writer, HIVES[0].path, b"content")
    writer.add_link(r"Files\link", HIVES[0].path)
    with pytest.raises(FormatError, match="in place of a hard link"):
        put(writer, r"Files\LINK", b"other")
    writer.abandon()


# ---- operations ----


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


# ---- the end ----


def test_close_twice_and_abandon_after_it_do_nothing(writer: CimLayerWriter, root: Path) -> None:
    put(writer, HIVES[0].path, b"content")
    writer.close()
    before = snapshot(root)
    writer.close()
    writer.abandon()
    assert snapshot(root) == before


def write_everything(writer: CimLayerWriter) -> None:
    put(writer, r"Files\big", b"x" * 100_000)
    put(writer, HIVES[0].path, b"content")
    put(writer, r"Hives\Sam_Delta", b"no hive")
    writer.remove(r"Files\x")
    writer.add(HIVES[1].path, FILE, 100)
    writer.write(b"\1\0\0\0")


@pytest.mark.parametrize("how", ["abandon", "with", "close"])
def test_failed_layer_leaves_nothing_and_its_parent_untouched(root: Path, how: str) -> None:
    before = snapshot(root)
    writer = CimLayerWriter(root / "child", [root / "base"], sync=False)
    if how == "with":
        with pytest.raises(RuntimeError, match="of the caller"), writer:
            write_everything(writer)
            raise RuntimeError("of the caller")
    elif how == "abandon":
        write_everything(writer)
        writer.abandon()
        writer.abandon()
    else:
        write_everything(writer)
        with pytest.raises(FormatError):
            writer.close()
    assert snapshot(root) == before


def test_failed_base_layer_takes_the_directories_that_it_made(tmp_path: Path) -> None:
    writer = base_writer(tmp_path / "base")
    assert snapshot(tmp_path)
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_failed_layer_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "cim-layers").mkdir()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "note").write_text("the snapshotter's")
    before = snapshot(tmp_path)
    base_writer(tmp_path / "base").abandon()
    assert snapshot(tmp_path) == before


def test_layer_that_exists_and_parents_elsewhere_are_refused(root: Path) -> None:
    before = snapshot(root)
    with pytest.raises(FileExistsError):
        CimLayerWriter(root / "base")
    with pytest.raises(FileNotFoundError):
        CimLayerWriter(root / "child", [root / "missing"])
    with pytest.raises(ValueError, match="one directory"):
        CimLayerWriter(root / "child", [root / "elsewhere" / "base"])
    assert snapshot(root) == before


@pytest.mark.parametrize("parents", [["child"], ["child", "base"]])
def test_parents_are_not_waited_for_where_there_is_not_even_a_directory_of_images(
    tmp_path: Path, parents: list[str]
) -> None:
    code = "import sys; from cimlayer import CimLayerWriter; CimLayerWriter(sys.argv[1], sys.argv[2:])"
    command = [sys.executable, "-c", code, tmp_path / "new", *(tmp_path / parent for parent in parents)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert "NotFoundError" in ended.stderr
    assert list(tmp_path.iterdir()) == []


LINK_TARGET = HIVES[2].path


@pytest.mark.parametrize(
    ("name", "info"),
    [
        (rf"{LINK_TARGET}\x", FILE),
        (LINK_TARGET, DIRECTORY),
        (r"Files\Windows", FILE),
        (r"files\new\LINK\x", FILE),
        (r"files\new\LINK", DIRECTORY),
        (r"files\NEW", FILE),
    ],
)
def test_what_would_be_lost_to_a_pending_file_is_refused(root: Path, name: str, info: FileBasicInfo) -> None:
    with CimLayerWriter(root / "child", [root / "base"], sync=False) as writer:
        put(writer, LINK_TARGET, b"x")
        writer.add_link(r"Files\new\link", LINK_TARGET)
        with pytest.raises(FormatError, match=r"in place of .* processed outside"):
            writer.add(name, info, 0)
        with pytest.raises(FormatError, match=r"in place of .* processed outside"):
            writer.add_link(rf"{LINK_TARGET}\x", r"Files\base")
        writer.add(r"Files\Windows", DIRECTORY, 0)
        writer.add(r"Files\new", DIRECTORY, 0)
    assert image_of(root / "child")[r"Files\new\link"].data == b"x"


def test_link_to_a_parents_standard_file_is_made_at_once(root: Path) -> None:
    with CimLayerWriter(root / "child", [root / "base"], sync=False) as writer:
        writer.add_link(r"Files\link", LINK_TARGET)
        writer.remove(LINK_TARGET)
    assert image_of(root / "child")[r"Files\link"].data == image_of(root / "base")[LINK_TARGET].data


def test_symbolic_link_in_the_layer_directory_is_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "child").mkdir()
    (root / "child" / "Files").symlink_to(outside)
    writer = CimLayerWriter(root / "child", [root / "base"], sync=False)
    with pytest.raises(OSError, match="symbolic link"):
        put(writer, HIVES[0].path, b"content")
    writer.abandon()
    assert list(outside.iterdir()) == []


def test_reproducible_layers_have_the_same_bytes_and_the_time_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    for root in ("one", "two"):
        (tmp_path / root).mkdir()
        base_writer(tmp_path / root / "base").close()
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    entry = image_of(tmp_path / "one" / "base")["layout"]
    assert entry.creation_time == entry.change_time == FILETIME_OF_1970 + 86_400 * 10**7


def test_committing_waits_for_the_disk_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with base_writer(tmp_path / "fast"):
        pass
    disks_only = len(synced)
    writer = CimLayerWriter(tmp_path / "child", [tmp_path / "fast"], sync=True)
    put(writer, HIVES[0].path, b"content")
    writer.close()
    assert len(synced) > disks_only


# ---- parents ----


def child_of(root: Path, *parents: str, name: str = "new") -> None:
    with CimLayerWriter(root / name, [root / parent for parent in parents], sync=False) as writer:
        put(writer, r"Files\new", b"1")


@pytest.mark.parametrize("parents", [["grandchild"], ["grandchild", "child"], ["grandchild", "child", "base"]])
def test_the_parents_are_those_of_the_image_or_the_first_ones_of_them(family: Path, parents: list[str]) -> None:
    child_of(family, *parents)
    assert r"Files\grandchild" in image_of(family / "new")


def test_the_immediate_parent_is_enough(family: Path) -> None:
    with CimLayerWriter(family / "new", [family / "grandchild"], sync=False) as writer:
        assert writer.parents == (family / "grandchild", family / "child", family / "base")


@pytest.mark.parametrize(
    ("parents", "error"),
    [
        (["grandchild", "base"], "base is not a layer below .*grandchild"),
        (["child", "grandchild", "base"], "grandchild is not a layer below .*child"),
        (["grandchild", "child", "base", "base"], "base is not a layer below .*grandchild"),
        (["grandchild", "stranger"], "stranger is not a layer below .*grandchild"),
        (["grandchild", "missing"], "missing.cim"),
        (["grandchild", "elsewhere/child"], "lie in one directory"),
        (["new", "base"], "its own parent"),
        (["child", "base/../new"], "its own parent"),
    ],
)
def test_parents_that_are_not_those_of_the_image_are_refused(family: Path, parents: list[str], error: str) -> None:
    base_writer(family / "stranger").close()
    before = snapshot(family)
    with pytest.raises((ValueError, PathNotFoundError), match=error):
        child_of(family, *parents)
    assert snapshot(family) == before


def test_a_layer_that_exists_is_not_its_own_parent(family: Path) -> None:
    before = snapshot(family)
    with pytest.raises(ValueError, match="its own parent"):
        child_of(family, "child", "base", name="child")
    assert snapshot(family) == before


def test_one_path_is_no_sequence_of_parents(family: Path) -> None:
    with pytest.raises(TypeError, match="sequence"):
        CimLayerWriter(family / "new", str(family / "base"))


def test_the_directory_of_the_images_is_no_layer(family: Path) -> None:
    images = family / "cim-layers"
    with pytest.raises(ValueError, match="of the images"):
        child_of(family, "base", name="cim-layers")
    (images / "cim-layers.cim").write_bytes((images / "child.cim").read_bytes())
    before = snapshot(family)
    with pytest.raises(ValueError, match="of the images"):
        destroy_cim_layer(images, force=True)
    assert snapshot(family) == before


# ---- what a killed import has left ----


@pytest.mark.parametrize("spelling", [str, str.lower])
def test_files_of_a_killed_import_do_not_get_into_another_one(family: Path, spelling: Callable[[str], str]) -> None:
    left = [str(path.relative_to(family / "base")) for path in (family / "base").rglob("*") if path.is_file()]
    left += ["Hives/SYSTEM_Delta", "Hives/SAM_BASE.tmp", "cimlayer.json", ".blank.vhdx.0123456789abcdef", "layout"]
    for name in left:
        path = family / "new" / spelling(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
    (family / "new" / "mine").write_bytes(b"kept")
    child_of(family, "child", "base")
    files = {str(path.relative_to(family / "new")) for path in (family / "new").rglob("*") if path.is_file()}
    assert files == {"mine"}


# ---- destroy ----


@pytest.fixture
def family(root: Path) -> Path:
    """The base layer, a child, and a grandchild."""
    for name, parents in (("child", ["base"]), ("grandchild", ["child", "base"])):
        with CimLayerWriter(root / name, [root / parent for parent in parents], sync=False) as writer:
            put(writer, rf"Files\{name}", b"content of " + name.encode())
            put(writer, HIVES[0].path, b"hive of " + name.encode())
    return root


def test_destroy_of_what_is_no_layer_does_nothing(family: Path) -> None:
    before = snapshot(family)
    destroy_cim_layer(family)
    destroy_cim_layer(family / "missing")
    (family / "plain").mkdir()
    destroy_cim_layer(family / "plain", force=True)
    (family / "plain").rmdir()
    assert snapshot(family) == before


def test_destroy_refuses_a_layer_with_children_and_names_them(family: Path) -> None:
    before = snapshot(family)
    with pytest.raises(OSError, match=r"child\.cim, grandchild\.cim"):
        destroy_cim_layer(family / "base")
    with pytest.raises(OSError, match=r"grandchild\.cim"):
        destroy_cim_layer(family / "child")
    assert snapshot(family) == before


@pytest.mark.parametrize("name", ["fork", "FORK.CIM"])
def test_destroy_refuses_the_parent_of_an_image_with_any_name(root: Path, name: str) -> None:
    with ImageWriter(root / "cim-layers", "base.cim", name, sync=False) as image:
        image.commit()
    before = snapshot(root)
    with pytest.raises(OSError, match=name):
        destroy_cim_layer(root / "base")
    assert snapshot(root) == before


def test_destroy_from_the_youngest_on_leaves_the_parents(root: Path) -> None:
    before = snapshot(root)
    states = [before]
    for name, parents in (("child", ["base"]), ("grandchild", ["child", "base"])):
        with CimLayerWriter(root / name, [root / parent for parent in parents], sync=False) as writer:
            put(writer, HIVES[0].path, b"hive")
        states.append(snapshot(root))
    for name, state in (("grandchild", states[1]), ("child", states[0])):
        destroy_cim_layer(root / name)
        assert snapshot(root) == state
        destroy_cim_layer(root / name)


def test_forced_destroy_spares_other_layers_files(family: Path) -> None:
    before = snapshot(family)
    destroy_cim_layer(family / "child", force=True)
    after = snapshot(family)
    assert set(after) < set(before)
    assert all(after[name] == before[name] for name in after)
    assert not is_cim_layer(family / "child")
    assert {"base", "grandchild", "cim-layers/base.cim", "cim-layers/grandchild.cim"} <= set(after)


def test_a_damaged_layer_is_destroyed_only_by_force(family: Path) -> None:
    image = get_cim_path_from_layer(family / "grandchild")
    with ImageReader(image) as reader:
        files = reader.region_sets[-1].file_names()
    others = {name: state for name, state in snapshot(family).items() if "grandchild" not in name}
    image.write_bytes(image.read_bytes()[:20])
    with pytest.raises(CorruptImageError):
        destroy_cim_layer(family / "grandchild")
    assert is_cim_layer(family / "grandchild")
    destroy_cim_layer(family / "grandchild", force=True)
    assert not is_cim_layer(family / "grandchild")
    collect_garbage(image.parent, delete=True)
    assert snapshot(family) == {name: state for name, state in others.items() if Path(name).name not in files}


def test_a_layer_that_lacks_a_region_file_is_destroyed_like_any_other_and_keeps_its_parents(family: Path) -> None:
    with ImageReader(get_cim_path_from_layer(family / "grandchild")) as reader:
        files = reader.region_sets[-1].file_names()
    (family / "cim-layers" / files[0]).unlink()
    with pytest.raises(OSError, match=r"grandchild\.cim"):
        destroy_cim_layer(family / "child")
    destroy_cim_layer(family / "grandchild")
    assert not is_cim_layer(family / "grandchild")
    assert not set(files) & set(os.listdir(family / "cim-layers"))


@pytest.mark.parametrize("content", [b"", b"cimfile0", None])
def test_a_layer_stays_while_an_image_cannot_be_read_that_may_be_its_child(
    family: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    def refuse(path: Path) -> list[RegionSet]:
        if path.name == "grandchild.cim":
            raise ImagePermissionError(errno.EACCES, "not for you", str(path))
        return read_region_sets(path)

    if content is None:
        monkeypatch.setattr("cimlayer.image.files.read_region_sets", refuse)
    else:
        (family / "cim-layers" / "grandchild.cim").write_bytes(content)
    before = snapshot(family)
    with pytest.raises(OSError, match=r"grandchild\.cim, which cannot be read") as raised:
        destroy_cim_layer(family / "child")
    assert raised.value.errno == errno.ENOTEMPTY
    assert snapshot(family) == before
    destroy_cim_layer(family / "child", force=True)
    assert not is_cim_layer(family / "child")


def test_a_layer_stays_while_another_image_has_its_region_set(root: Path) -> None:
    shutil.copy(root / "cim-layers" / "base.cim", root / "cim-layers" / "copy.cim")
    with pytest.raises(OSError, match=r"the same region set: copy\.cim"):
        destroy_cim_layer(root / "base")
    assert is_cim_layer(root / "base")


def test_a_linked_layer_directory_is_refused_before_anything_is_removed(root: Path) -> None:
    (root / "base").rename(root / "elsewhere")
    (root / "base").symlink_to("elsewhere")
    before = snapshot(root / "cim-layers")
    with pytest.raises(NotADirectoryError):
        destroy_cim_layer(root / "base", force=True)
    assert snapshot(root / "cim-layers") == before


@pytest.mark.parametrize("order", [("child", "grandchild"), ("grandchild", "child")])
def test_broken_children_are_reported_and_destroyed_in_any_order(family: Path, order: tuple[str, ...]) -> None:
    destroy_cim_layer(family / "base", force=True)
    assert broken_images(family / "cim-layers").keys() == {"child.cim", "grandchild.cim"}
    for name in order:
        destroy_cim_layer(family / name)
    assert os.listdir(family) == ["cim-layers"]
    assert os.listdir(family / "cim-layers") == []
