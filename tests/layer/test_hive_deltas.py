"""Deltas of hives, which closing a layer merges onto the hives below."""

from __future__ import annotations

import gzip
import io
import shutil
import tracemalloc
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import CorruptHiveError, DirtyHiveWarning, FormatError
from cimlayer.events import LayerWarning
from cimlayer.layer.standard import HIVES
from support import layers
from support.closedlayers import (
    add,
    add_and_hear,
    made_base,  # noqa: F401  fixtures
    root,  # noqa: F401
)
from support.hives import dissect_tree, with_checksum
from support.layers import image_of, snapshot, strings_of
from support.tars import TarBuilder, header

DELTAS = {hive.name: hive.delta_path.replace("\\", "/") for hive in HIVES}
BASES = {hive.name: hive.base_path for hive in HIVES}


def delta_tar(**hives: bytes) -> TarBuilder:
    """A child layer that brings these deltas, by the names of the hives."""
    tar = TarBuilder()
    for name, data in hives.items():
        tar.file(DELTAS[name], data)
    return tar


def merged(layer: Path, name: str) -> dict[str, str]:
    """The layer's full hive, the same in its directory and in its image."""
    data = (layer / BASES[name].replace("\\", "/")).read_bytes()
    assert image_of(layer)[BASES[name]].data == data
    values = dissect_tree(data)["Test"][2]
    assert {key: value.decode("utf-16-le").rstrip("\0") for key, (_, value) in values.items()} == strings_of(data)
    return strings_of(data)


@pytest.mark.parametrize("name", DELTAS)
def test_delta_is_merged_onto_the_parents_hive(root: Path, name: str) -> None:
    child = add(root, delta_tar(**{name: layers.hive(child="yes")}), "child", ["base"])
    assert merged(child, name) == {"who": name, "child": "yes"}
    others = set(BASES.values()) - {BASES[name]}
    assert not [path for path in others if (child / path.replace("\\", "/")).exists()]
    image = image_of(child)
    assert image[DELTAS[name].replace("/", "\\")].data == layers.hive(child="yes")
    assert {path: image[path].data for path in others} == {path: image_of(root / "base")[path].data for path in others}


def test_delta_in_any_case_is_merged(root: Path) -> None:
    tar = TarBuilder()
    tar.file("hives/System_Delta", layers.hive(child="yes"))
    child = add(root, tar, "child", ["base"])
    data = (child / "hives" / "SYSTEM_BASE").read_bytes()
    assert strings_of(data) == {"who": "SYSTEM", "child": "yes"}
    assert image_of(child)[r"Hives\SYSTEM_BASE"].data == data


def test_nearest_ancestor_with_a_full_hive_counts(root: Path) -> None:
    add(root, delta_tar(SYSTEM=layers.hive(one="1", both="one")), "one", ["base"])
    add(root, TarBuilder(), "two", ["one", "base"])  # as one built on Linux: no deltas, so no full hives
    three = add(root, delta_tar(SYSTEM=layers.hive(three="3", both="three"), SAM=layers.hive(x="x")), "three",
                ["two", "one", "base"])  # fmt: skip
    assert not (root / "two" / "Hives").exists()
    assert merged(three, "SYSTEM") == {"who": "SYSTEM", "one": "1", "three": "3", "both": "three"}
    assert merged(three, "SAM") == {"who": "SAM", "x": "x"}


def test_parents_image_serves_when_no_directory_has_the_hive(root: Path) -> None:
    add(root, delta_tar(SYSTEM=layers.hive(one="1")), "one", ["base"])
    for layer in ("one", "base"):
        shutil.rmtree(root / layer / "Hives")
    two = add(root, delta_tar(SYSTEM=layers.hive(two="2")), "two", ["one", "base"])
    assert merged(two, "SYSTEM") == {"who": "SYSTEM", "one": "1", "two": "2"}


def test_delta_without_any_hive_below_is_an_error(root: Path) -> None:
    shutil.rmtree(root / "base" / "Hives")
    tar = TarBuilder()
    tar.whiteout("Hives")
    add(root, tar, "one", ["base"])
    before = snapshot(root)
    with pytest.raises(FormatError, match=r"layer two: no ancestor has Hives\\SYSTEM_BASE"):
        add(root, delta_tar(SYSTEM=layers.hive()), "two", ["one", "base"])
    assert snapshot(root) == before


@pytest.mark.parametrize(
    ("data", "offset"), [(b"no hive at all", None), (layers.hive(a="b")[:4096], None), (b"", None), ("root", 4132)]
)
def test_bad_delta_is_refused_with_its_name_and_offset(root: Path, data: bytes | str, offset: int | None) -> None:
    if isinstance(data, str):
        hive = bytearray(layers.hive(a="b"))
        at = 4096 + int.from_bytes(hive[36:40], "little") + 4
        hive[at : at + 2] = b"??"
        data = bytes(hive)
    before = snapshot(root)
    with pytest.raises(FormatError, match=r"layer child: Hives\\SYSTEM_DELTA") as caught:
        add(root, delta_tar(SAM=layers.hive(), SYSTEM=data), "child", ["base"])
    assert caught.value.offset >= 0
    assert snapshot(root) == before
    if offset is not None:
        assert caught.value.offset in (offset, offset - 4)


def test_large_file_in_place_of_a_delta_is_not_read(root: Path) -> None:
    size = 64 << 20
    blob = io.BytesIO()
    with gzip.open(blob, "wb", 1) as tar:
        tar.write(header(DELTAS["SYSTEM"].encode(), size))
        for _ in range(size >> 20):
            tar.write(bytes(1 << 20))
        tar.write(bytes(1024))
    blob.seek(0)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptHiveError, match=r"layer child: Hives\\SYSTEM_DELTA: not a registry hive"):
            cimlayer.import_layer(blob, root / "child", [root / "base"], sync=False)
        assert tracemalloc.get_traced_memory()[1] < size // 2
    finally:
        tracemalloc.stop()


def empty_base(root: Path) -> Path:
    """A base layer as build tools make them: its hives are files of 0 bytes."""
    tar = TarBuilder()
    for hive in HIVES:
        tar.file(hive.path.replace("\\", "/"), b"")
    return add(root, tar, "base")


def test_base_hives_of_no_bytes_are_linked(tmp_path: Path) -> None:
    base = empty_base(tmp_path)
    image = image_of(base)
    for hive in HIVES:
        assert (base / hive.base_path.replace("\\", "/")).read_bytes() == b""
        assert image[hive.base_path].file_id == image[hive.path].file_id


def test_base_hives_are_not_opened(tmp_path: Path) -> None:
    tar = TarBuilder()
    for hive in HIVES:
        tar.file(hive.path.replace("\\", "/"), b"no hive")
    base = add(tmp_path, tar, "base")
    assert image_of(base)[BASES["SAM"]].data == b"no hive"
    with pytest.raises(CorruptHiveError, match=r"parent of layer child: Hives\\SAM_BASE"):
        add(tmp_path, delta_tar(SAM=layers.hive(a="b")), "child", ["base"])


@pytest.mark.parametrize("only_in_the_image", [False, True])
def test_delta_on_a_base_hive_of_no_bytes_is_merged_onto_an_empty_hive(tmp_path: Path, only_in_the_image: bool) -> None:
    base = empty_base(tmp_path)
    if only_in_the_image:
        shutil.rmtree(base / "Hives")
    child = add(tmp_path, delta_tar(SYSTEM=layers.hive(a="b")), "child", ["base"])
    assert merged(child, "SYSTEM") == {"a": "b"}
    grandchild = add(tmp_path, delta_tar(SYSTEM=layers.hive(c="d")), "grandchild", ["child", "base"])
    assert merged(grandchild, "SYSTEM") == {"a": "b", "c": "d"}
    assert image_of(grandchild)[BASES["SAM"]].data == b""


def dirty(data: bytes) -> bytes:
    """The hive with unequal sequence numbers."""
    changed = bytearray(data)
    changed[8:12] = bytes(4)
    return with_checksum(bytes(changed))


def test_dirty_delta_is_read_as_it_is_with_a_warning_and_an_event(root: Path) -> None:
    tar = delta_tar(SYSTEM=dirty(layers.hive(child="yes")))
    with pytest.warns(DirtyHiveWarning) as caught:
        events = add_and_hear(root, tar, "child", ["base"])
    text = r"layer child: Hives\SYSTEM_DELTA: a dirty hive is read as it is"
    assert [str(warning.message) for warning in caught] == [text]
    assert events[0] == LayerWarning("child", text)
    assert merged(root / "child", "SYSTEM") == {"who": "SYSTEM", "child": "yes"}
