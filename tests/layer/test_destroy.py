"""CimLayerWriter: parents, what a killed import has left, destroy."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimfs_ext.regionsets import read_region_sets
from cimfs_ext.reports import RegionSet
from cimlayer import (
    CimLayerWriter,
    ImageReader,
    destroy_cim_layer,
    get_cim_path_from_layer,
    is_cim_layer,
)
from cimlayer.errors import (
    CorruptImageError,
    ImagePermissionError,
    PathNotFoundError,
)
from cimlayer.layer.garbage import broken_images, collect_garbage
from cimlayer.layer.standard import HIVES
from support.layers import image_of, snapshot
from support.layerwriters import base_writer, made_base, put, root, writer  # noqa: F401  fixtures
from support.platforms import needs_symlinks

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


@needs_symlinks
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
