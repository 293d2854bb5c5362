"""export_layer: single cases."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimfs_ext.image import ImageWriter
from cimlayer.errors import CorruptImageError, FormatError, LimitError
from cimlayer.layer.paths import get_cim_path_from_layer
from cimlayer.limits import Limits
from cimlayer.oci.export_layer import export_layer
from support.exports import DIRECTORY, facts
from support.image_layers import MOUNT_POINT, SYMLINK, bare_layer, base_tar, import_tar, link_data
from support.images import FORGED_NAMES, forge_name
from support.tars import FILETIME_OF_1970, TarBuilder, windows_pax
from support.trees import assert_equal_trees


def exported(layer: Path, parents: list[Path] | None = None) -> bytes:
    output = io.BytesIO()
    export_layer(layer, parents or [], output)
    return output.getvalue()


def names_in(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getnames()


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {member.name: member for member in archive}


def test_unchanged_layer_exports_to_nothing(tmp_path: Path) -> None:
    base = import_tar(tmp_path, "base", base_tar())
    child = bare_layer(tmp_path, "child", lambda image: None, "base")
    assert exported(child, [base]) == bytes(1024)


def test_parents_are_found_where_none_are_given(tmp_path: Path) -> None:
    base = import_tar(tmp_path, "base", base_tar())
    middle = bare_layer(tmp_path, "middle", lambda image: image.create_file("Files\\m", size=0), "base")
    top = bare_layer(tmp_path, "top", lambda image: image.create_file("Files\\t", size=0), "middle")
    for layer, parents in ((base, []), (middle, [base]), (top, [middle, base])):
        expected = exported(layer, parents)
        for none in (None, [], ()):
            output = io.BytesIO()
            export_layer(layer, none, output)
            assert output.getvalue() == expected
    get_cim_path_from_layer(middle).unlink()
    with pytest.raises(FileNotFoundError, match="the parent with region set"):
        export_layer(top, None, tmp_path / "new.tar")
    assert not (tmp_path / "new.tar").exists()


def test_files_are_added_changed_and_removed(tmp_path: Path) -> None:
    builder = base_tar()
    for name in ("kept", "changed", "removed"):
        builder.file(f"Files/{name}", b"old")
    builder.file("Files/directory/inside", b"old")
    base = import_tar(tmp_path, "base", builder)
    changes = TarBuilder()
    changes.file("Files/added", b"new")
    changes.file("Files/changed", b"new")
    changes.whiteout("Files/removed")
    changes.whiteout("Files/directory")
    child = import_tar(tmp_path, "child", changes, ["base"])
    assert names_in(exported(child, [base])) == [
        "Files/added", "Files/changed", "Files/.wh.directory", "Files/.wh.removed"
    ]  # fmt: skip


def test_new_name_of_a_file_of_the_parent_is_a_hard_link(tmp_path: Path) -> None:
    builder = base_tar()
    builder.file("Files/z", b"content")
    base = import_tar(tmp_path, "base", builder)
    changes = TarBuilder()
    changes.hardlink("Files/a", "Files/z")
    child = import_tar(tmp_path, "child", changes, ["base"])
    entry = members(exported(child, [base]))["Files/a"]
    assert (entry.islnk(), entry.linkname) == (True, "Files/z")


def test_renamed_file_is_written_with_its_content(tmp_path: Path) -> None:
    builder = base_tar()
    builder.file("Files/old", b"content")
    base = import_tar(tmp_path, "base", builder)

    def rename(image: ImageWriter) -> None:
        image.create_hard_link(r"Files\new", r"Files\old")
        image.delete_path(r"Files\old")

    child = bare_layer(tmp_path, "child", rename, "base")
    entries = members(exported(child, [base]))
    assert entries.keys() == {"Files/new", "Files/.wh.old"}
    assert entries["Files/new"].isreg()
    assert entries["Files/new"].size == len(b"content")


def test_stream_added_through_one_name_rewrites_all_names(tmp_path: Path) -> None:
    builder = base_tar()
    builder.file("Files/one", b"content")
    builder.hardlink("Files/two", "Files/one")
    base = import_tar(tmp_path, "base", builder)

    def add_stream(image: ImageWriter) -> None:
        image.create_alternate_stream(r"Files\two:zone", 4)
        image.write(b"data")

    child = bare_layer(tmp_path, "child", add_stream, "base")
    tar = exported(child, [base])
    assert names_in(tar) == ["Files/one", "Files/one:zone", "Files/two"]
    (tmp_path / "again.tar").write_bytes(tar)
    cimlayer.import_layer(tmp_path / "again.tar", tmp_path / "again", [base], sync=False)
    assert_equal_trees(child, tmp_path / "again", ignored=("",))


def respell(image: ImageWriter) -> None:
    image.delete_path("Data")
    image.create_file("DATA", attributes=DIRECTORY)
    image.create_file(r"DATA\kept")


def lose_stream(image: ImageWriter) -> None:
    image.delete_path("Data:zone")


def become_file(image: ImageWriter) -> None:
    image.delete_path("Data")
    image.create_file("data", size=1)


def become_directory(image: ImageWriter) -> None:
    image.delete_path("file")
    image.create_file("File", attributes=DIRECTORY)
    image.create_file(r"File\inside")


def change_directory(image: ImageWriter) -> None:
    image.create_file("Data", attributes=DIRECTORY | 2, last_write_time=5)


@pytest.mark.parametrize("change", [respell, lose_stream, become_file, become_directory, change_directory])
def test_directories_that_change_come_back_as_they_are(tmp_path: Path, change: Any) -> None:
    builder = base_tar()
    builder.directory("Data")
    builder.stream("Data", "zone", b"stream")
    builder.file("Data/kept", b"kept")
    builder.file("file", b"a file")
    base = import_tar(tmp_path, "base", builder)
    child = bare_layer(tmp_path, "child", change, "base")
    export_layer(child, [base], tmp_path / "again.tar")
    cimlayer.import_layer(tmp_path / "again.tar", tmp_path / "again", [base], sync=False)
    assert_equal_trees(child, tmp_path / "again", ignored=("",))


def test_directory_whose_streams_stay_is_not_written_and_no_stream_is_read(tmp_path: Path) -> None:
    size = 32 << 20

    def fill(image: ImageWriter) -> None:
        for name in ("kept", "new"):
            image.create_file(name, attributes=DIRECTORY)
        image.create_alternate_stream("kept:hole", size)
        image.create_alternate_stream("kept:zone", 4)
        image.write(b"zone")

    def change(image: ImageWriter) -> None:
        image.create_file(r"kept\inside")
        image.create_alternate_stream("new:hole", size)

    parent = bare_layer(tmp_path, "parent", fill)
    child = bare_layer(tmp_path, "child", change, "parent")
    tracemalloc.start()
    try:
        with pytest.raises(LimitError, match="new:hole"):
            export_layer(child, [parent], tmp_path / "tar", limits=Limits(bytes=1000))
        assert tracemalloc.get_traced_memory()[1] < size // 2
    finally:
        tracemalloc.stop()
    assert names_in(exported(child, [parent])) == ["kept/inside", "new", "new:hole"]


def test_standard_file_stands_before_links_to_it(tmp_path: Path) -> None:
    builder = base_tar()
    builder.hardlink("A link that sorts first", "Files/Windows/System32/config/SYSTEM")
    base = import_tar(tmp_path, "base", builder)
    tar = exported(base)
    names = names_in(tar)
    assert names[:2] == ["Files/Windows/System32/config/SYSTEM", "A link that sorts first"]
    assert names.count("Files/Windows/System32/config/SYSTEM") == 1
    (tmp_path / "again.tar").write_bytes(tar)
    cimlayer.import_layer(tmp_path / "again.tar", tmp_path / "again", sync=False, reproducible=True)
    assert_equal_trees(base, tmp_path / "again")


def test_what_the_import_makes_is_left_out_and_deltas_are_not(tmp_path: Path) -> None:
    base = import_tar(tmp_path, "base", base_tar())
    assert not [name for name in names_in(exported(base)) if name.startswith(("Hives", "layout"))]
    changes = TarBuilder()
    hive = (base / "Files/Windows/System32/config/SAM").read_bytes()
    changes.file("Hives/Sam_Delta", hive)
    child = import_tar(tmp_path, "child", changes, ["base"])
    assert names_in(exported(child, [base])) == ["Hives/Sam_Delta"]


@pytest.mark.parametrize("time", [0, 1, FILETIME_OF_1970 - 15_000_000, FILETIME_OF_1970, 132223104001234567])
def test_times_are_exact(tmp_path: Path, time: int) -> None:
    builder = base_tar()
    pax = windows_pax(0x20, creation=time, mtime=time, atime=time, ctime=time)
    builder.file("file", pax=pax)
    base = import_tar(tmp_path, "base", builder)
    found = facts(members(exported(base))["file"], b"")
    assert {found[key] for key in found if key.endswith("_time")} == {time}


LINKS = {  # the names of a link, and those that it has when it was exported and imported
    "relative": (("..\\x", "..\\x", True), "..\\x"),
    "rooted": (("\\x", "\\x", True), "\\x"),
    "drive": (("C:\\x", "\\??\\C:\\x", False), "C:\\x"),
    "share": (("\\\\host\\x", "\\??\\UNC\\host\\x", False), "\\\\host\\x"),
    "drive by its long form": (("\\\\?\\C:\\x", "\\??\\C:\\x", False), "\\\\?\\C:\\x"),
    "drive without a print name": (("", "\\??\\C:\\x", False), "C:\\x"),
    "share without a print name": (("", "\\??\\UNC\\host\\x", False), "\\\\host\\x"),
    "volume without a print name": (("", "\\??\\Volume{a}\\", False), "\\\\?\\Volume{a}\\"),
    "another print name": (("D:\\shown", "\\??\\C:\\real", False), "C:\\real"),
    "another relative print name": (("shown", "real", True), "real"),
}  # fmt: skip


@pytest.mark.parametrize("tag", [SYMLINK, MOUNT_POINT])
@pytest.mark.parametrize("case", LINKS)
def test_links_lead_where_they_led(tmp_path: Path, case: str, tag: int) -> None:
    (shown, leads, relative), shown_again = LINKS[case]
    data = link_data(leads, shown=shown, tag=tag, relative=relative)
    layer = bare_layer(tmp_path, "layer", lambda image: image.create_file("l", reparse_data=data))
    tar = exported(layer)
    base = bare_layer(tmp_path, "base", lambda image: None)
    (tmp_path / "tar").write_bytes(tar)
    cimlayer.import_layer(tmp_path / "tar", tmp_path / "again", [base], sync=False)
    with cimlayer.ImageReader(get_cim_path_from_layer(tmp_path / "again")) as image:
        assert image.reparse_data("l") == link_data(leads, shown=shown_again, tag=tag, relative=relative)


def unsupported_reparse_point(image: ImageWriter) -> None:
    image.create_file("cloud", reparse_data=bytes.fromhex("1a000090 0000 0000"))


def link_with_content(image: ImageWriter) -> None:
    image.create_file("link", size=1, reparse_data=link_data("target"))
    image.write(b"x")


def link_out_of_all_names(image: ImageWriter) -> None:
    image.create_file("link", reparse_data=link_data("\\Device\\x", relative=False))


def whiteout_name(image: ImageWriter) -> None:
    image.create_file(".wh.name")


def whiteout_name_of_a_directory(image: ImageWriter) -> None:
    image.create_file("d", attributes=DIRECTORY)
    image.create_file(r"d\.wh..wh..opq", attributes=DIRECTORY)


def whiteout_name_of_a_link(image: ImageWriter) -> None:
    image.create_file("a", size=0)
    image.create_hard_link(".wh.name", "a")


TAGGED = b"\0\0\0\0\0\x03\1\0TAG\0v"


def needed_attribute(image: ImageWriter) -> None:
    image.create_file("file", extended_attributes=TAGGED[:4] + b"\x80" + TAGGED[5:])


def lone_surrogate(image: ImageWriter) -> None:
    image.create_file("name\ud800")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (unsupported_reparse_point, "cloud: a layer tar cannot carry this reparse point: cloud file"),
        (link_with_content, "link: a link without a target, or with content of its own"),
        (link_out_of_all_names, "link: a layer tar cannot say where this link leads"),
        (whiteout_name, ".wh.name: a name that means a whiteout in a layer tar"),
        (whiteout_name_of_a_directory, "d\\.wh..wh..opq: a name that means a whiteout"),
        (whiteout_name_of_a_link, ".wh.name: a name that means a whiteout"),
        (needed_attribute, "file: a tar cannot carry the extended attribute 'TAG'"),
        (lone_surrogate, "half a surrogate pair"),
    ],
)
def test_what_a_tar_cannot_carry_is_an_error_and_leaves_no_tar(tmp_path: Path, fill: Any, message: str) -> None:
    layer = bare_layer(tmp_path, "layer", fill)
    with pytest.raises(FormatError) as caught:
        export_layer(layer, [], tmp_path / "tar")
    assert message in str(caught.value)
    assert not (tmp_path / "tar").exists()


def test_damaged_extended_attributes_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    layer = bare_layer(tmp_path, "layer", lambda image: image.create_file("file", extended_attributes=TAGGED))
    for region in (tmp_path / "cim-layers").glob("region_*_0"):
        region.write_bytes(region.read_bytes().replace(TAGGED, TAGGED[:6] + b"\xff" + TAGGED[7:]))
    with pytest.raises(FormatError, match="extended attributes: an entry") as caught:
        exported(layer)
    assert caught.value.what == "file"


@pytest.mark.parametrize("name", [".wh..opq", ".wh.name"])
def test_removal_that_a_tar_cannot_tell_is_an_error(tmp_path: Path, name: str) -> None:
    """As a whiteout the first one would hide all that stands beside it."""

    def fill(image: ImageWriter) -> None:
        image.create_file("d", attributes=DIRECTORY)
        image.create_file(r"d\kept")
        image.create_file(f"d\\{name}")

    parent = bare_layer(tmp_path, "parent", fill)
    child = bare_layer(tmp_path, "child", lambda image: image.delete_path(f"d\\{name}"), "parent")
    with pytest.raises(FormatError, match="means a whiteout") as caught:
        exported(child, [parent])
    assert caught.value.what == f"d\\{name}"


def of_a_file(image: ImageWriter, name: str) -> None:
    image.create_file("d", attributes=DIRECTORY)
    image.create_file(f"d\\{name}")


def of_a_directory(image: ImageWriter, name: str) -> None:
    image.create_file(name, attributes=DIRECTORY)
    image.create_file(f"{name}\\inside")


@pytest.mark.parametrize("name", FORGED_NAMES)
@pytest.mark.parametrize("fill", [of_a_file, of_a_directory])
def test_names_that_only_a_forged_image_has_are_refused(tmp_path: Path, fill: Any, name: str) -> None:
    honest = "axb"[: len(name)]
    layer = bare_layer(tmp_path, "layer", lambda image: fill(image, honest))
    forge_name(tmp_path / "cim-layers", honest, name)
    with pytest.raises(CorruptImageError, match="a name "):
        export_layer(layer, [], tmp_path / "tar")
    assert not (tmp_path / "tar").exists()


def change_inside(image: ImageWriter) -> None:
    image.create_file(r"ax\new")


def remove_it(image: ImageWriter) -> None:
    image.delete_path("ax")


def link_to_what_is_inside(image: ImageWriter) -> None:
    image.create_hard_link("link", r"ax\inside")


@pytest.mark.parametrize("change", [change_inside, remove_it, link_to_what_is_inside])
def test_forged_names_of_a_parent_are_refused(tmp_path: Path, change: Any) -> None:
    parent = bare_layer(tmp_path, "parent", lambda image: of_a_directory(image, "ax"))
    child = bare_layer(tmp_path, "child", change, "parent")
    for region in (tmp_path / "cim-layers").glob("region_*"):
        region.write_bytes(region.read_bytes().replace("ax".encode("utf-16-le"), "..".encode("utf-16-le")))
    with pytest.raises(CorruptImageError, match="a name "):
        exported(child, [parent])


@pytest.mark.parametrize("name", ["a:b", "a/b", "a\\b", "a\0b"])
def test_forged_names_of_streams_are_refused(tmp_path: Path, name: str) -> None:
    def fill(image: ImageWriter) -> None:
        image.create_file("file")
        image.create_alternate_stream("file:axb", 0)

    layer = bare_layer(tmp_path, "layer", fill)
    forge_name(tmp_path / "cim-layers", "axb", name)
    with pytest.raises(CorruptImageError, match="a name "):
        exported(layer)


def test_existing_output_is_kept(tmp_path: Path) -> None:
    layer = bare_layer(tmp_path, "layer", lambda image: None)
    (tmp_path / "tar").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        export_layer(layer, [], tmp_path / "tar")
    assert (tmp_path / "tar").read_bytes() == b"precious"


def test_parent_must_be_the_one_it_was_forked_from(tmp_path: Path) -> None:
    one = bare_layer(tmp_path, "one", lambda image: None)
    two = bare_layer(tmp_path, "two", lambda image: None, "one")
    three = bare_layer(tmp_path, "three", lambda image: None, "two")
    for layer, parents in ((three, [one]), (one, [two])):
        with pytest.raises(ValueError, match="forked from"):
            export_layer(layer, parents, io.BytesIO())
