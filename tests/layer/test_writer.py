"""CimLayerWriter: where things lie, a base layer, standard files, the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cimfs_ext.backupstream import BackupStreamWriter as Stream
from cimlayer import (
    CimLayerWriter,
    FileBasicInfo,
    destroy_cim_layer,
    get_cim_dir_from_layer,
    get_cim_name_from_layer,
    get_cim_path_from_layer,
    is_cim_layer,
)
from cimlayer.errors import (
    FormatError,
)
from cimlayer.layer.standard import HIVES, STANDARD_FILES
from support import layers
from support.layers import NULL_DACL, image_of, snapshot
from support.layerwriters import (  # noqa: F401  fixtures
    DIRECTORY,
    EAS,
    FILE,
    OWNED,
    base_writer,
    directories,
    feed,
    made_base,
    put,
    root,
    writer,
)
from support.platforms import needs_symlinks
from support.tars import FILETIME_OF_1970

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


def test_root_of_a_filesystem_is_no_layer() -> None:
    root = Path.cwd().anchor
    assert not is_cim_layer(root)
    destroy_cim_layer(root)
    destroy_cim_layer(root, force=True)


def test_is_cim_layer_when_the_image_is_there(made_base: Path) -> None:
    assert is_cim_layer(made_base / "base")
    assert not is_cim_layer(made_base / "other")


# ---- a base layer ----


def test_base_layer_leaves_what_layer_md_lists(made_base: Path) -> None:
    names = {name for name, (kind, _) in snapshot(made_base / "base").items() if kind == "file"}
    assert {name.replace("\\", "/") for name in names} == {
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
    (tmp_path / "base" / "note").write_text("the snapshotter's", encoding="utf-8")
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
    ended = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=30)
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


@needs_symlinks
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
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        base_writer(tmp_path / name / "base").close()
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
