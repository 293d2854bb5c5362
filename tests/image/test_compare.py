"""Differences between images: those that the manifests of the corpus have, and one aspect at a time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimlayer.errors import CorruptImageError
from cimlayer.formats.sddl import descriptor_from_sddl
from cimlayer.image.compare import Change, diff_images, walk_differences
from cimlayer.layer.paths import get_cim_path_from_layer
from support.cimbytes import LINKS, Builder, link_table, stream
from support.corpus import KEPT_ATTRIBUTES, is_managed, manifest_of
from support.descriptors import parts_of
from support.image_layers import link_data
from support.images import add, make_image, writer
from support.shared import SHARED_LAYERS

DIRECTORY = 0x10
TIMES = ("creation_time", "last_write_time", "change_time", "last_access_time")
PAIRS = [("base", "child"), ("base", "edge"), ("child", "grandchild"), ("child", "greatgrandchild")]


def changes(older: Path, newer: Path) -> list[Change]:
    with cimlayer.ImageReader(older) as one, cimlayer.ImageReader(newer) as two:
        return list(diff_images(one, two))


# ---- the corpus ----


def entries_of(name: str, rules: list[str]) -> dict[str, dict[str, Any]]:
    return {
        entry["path"].upper(): entry for entry in manifest_of(name)["entries"] if not is_managed(entry["path"], rules)
    }


def aspects_between(entry: dict[str, Any], older: dict[str, Any]) -> set[str]:
    """The aspects in which two lines of manifests differ."""
    same_type = entry["type"] == older["type"]
    attributes = [one["attributes"] & KEPT_ATTRIBUTES for one in (entry, older)]
    found = {
        "name": entry["path"].rpartition("\\")[2] != older["path"].rpartition("\\")[2],
        "type": not same_type,
        "content": same_type and entry.get("sha256") != older.get("sha256"),
        "attributes": same_type and attributes[0] != attributes[1],
        "times": any(entry[time] != older[time] for time in TIMES),
        "extended_attributes": entry.get("eas", []) != older.get("eas", []),
        "reparse_data": entry.get("reparse") != older.get("reparse"),
        "streams": entry.get("streams", []) != older.get("streams", []),
    }
    return {aspect for aspect, differs in found.items() if differs}


@pytest.mark.parametrize(("older", "newer"), PAIRS)
def test_difference_of_layers_is_what_the_manifests_say(corpus: Path, older: str, newer: str) -> None:
    rules = manifest_of(older)["managed_rules"] + manifest_of(newer)["managed_rules"]
    before, after = entries_of(older, rules), entries_of(newer, rules)
    cims = [get_cim_path_from_layer(corpus / name) for name in (older, newer)]
    found = {change.path: change for change in changes(*cims) if change.path and not is_managed(change.path, rules)}
    kinds = {kind: {path.upper() for path, one in found.items() if one.kind == kind} for kind in ("added", "removed")}
    assert kinds == {"added": after.keys() - before.keys(), "removed": before.keys() - after.keys()}
    changed = {path.upper(): set(one.aspects) for path, one in found.items() if one.kind == "changed"}
    for key in before.keys() & after.keys():
        wanted = aspects_between(after[key], before[key])
        got = changed.get(key, set())
        unknown = {"security_descriptor"}
        if "unspecified" in after[key] or "unspecified" in before[key]:
            unknown |= {"times", "attributes"}
        assert got - unknown == wanted - unknown, key
        if "unspecified" not in after[key] and "sddl" not in after[key] and "sddl" not in before[key]:
            assert ("security_descriptor" in got) == (after[key]["sd"] != before[key]["sd"]), key
        elif "security_descriptor" not in got and "unspecified" not in after[key]:
            assert parts_of(bytes.fromhex(after[key]["sd"])) == parts_of(bytes.fromhex(before[key]["sd"]))


def test_direction_only_turns_the_signs(corpus: Path) -> None:
    base, child = (get_cim_path_from_layer(corpus / name) for name in ("base", "child"))
    forth = {(change.kind, change.path.upper(), change.aspects) for change in changes(base, child)}
    turned = {"added": "removed", "removed": "added", "changed": "changed"}
    back = {(turned[change.kind], change.path.upper(), change.aspects) for change in changes(child, base)}
    assert back == forth


def test_unrelated_images_give_the_same_answer(corpus: Path, tmp_path: Path) -> None:
    base, child = (get_cim_path_from_layer(corpus / name) for name in ("base", "child"))
    cimlayer.import_layer(SHARED_LAYERS / "base.tar.gz", tmp_path / "base", sync=False, reproducible=True)
    other = get_cim_path_from_layer(tmp_path / "base")
    other.rename(other.with_name("other.cim"))
    mine = make_image(other.parent, "unrelated.cim", {"only": b"here"})
    assert {change.kind for change in changes(mine, other.with_name("other.cim"))} == {"added", "removed", "changed"}
    pairs = [(base, child), (other.with_name("other.cim"), child)]
    summary = [[(change.kind, change.path, change.aspects) for change in changes(*pair)] for pair in pairs]
    assert summary[0] == summary[1]


# ---- one aspect at a time ----


def extended_attribute(value: bytes) -> bytes:
    return b"\0\0\0\0\0\x03" + len(value).to_bytes(2, "little") + b"TAG\0" + value


@pytest.mark.parametrize(
    ("metadata", "data", "aspects"),
    [
        ({}, b"same", ()),
        ({}, b"diff", ("content",)),
        ({}, b"longer", ("content",)),
        ({"attributes": 2}, b"same", ("attributes",)),
        ({"last_write_time": 9}, b"same", ("times",)),
        ({"security_descriptor": descriptor_from_sddl("O:BA")}, b"same", ("security_descriptor",)),
        ({"extended_attributes": extended_attribute(b"v")}, b"same", ("extended_attributes",)),
        ({"reparse_data": link_data("x")}, b"same", ("attributes", "reparse_data")),
        ({"attributes": DIRECTORY}, b"", ("type",)),
    ],
)
@pytest.mark.parametrize("related", [True, False])
def test_each_aspect_is_named(
    tmp_path: Path, metadata: dict[str, Any], data: bytes, aspects: tuple[str, ...], related: bool
) -> None:
    older = make_image(tmp_path, "older.cim", {"file": b"same", "other": b"x"})
    with writer(tmp_path, "older.cim" if related else None, "newer.cim") as image:
        if not related:
            add(image, "other", b"x")
        add(image, "file", data, **metadata)
        image.commit()
    found = [change for change in changes(older, tmp_path / "newer.cim") if change.path]
    assert [(change.path, change.aspects) for change in found] == ([("file", aspects)] if aspects else [])


def test_streams_and_spelling_are_aspects(tmp_path: Path) -> None:
    older = make_image(tmp_path, "older.cim", {"a": b"", "b": b"", "c": b""})
    with writer(tmp_path, "older.cim", "newer.cim") as image:
        add(image, "A")
        image.create_alternate_stream("b:zone", 1)
        image.write(b"x")
        image.commit()
    with writer(tmp_path, "newer.cim", "newest.cim") as image:
        image.create_alternate_stream("b:zone", 1)
        image.write(b"y")
        image.commit()
    found = [(change.path, change.aspects) for change in changes(older, tmp_path / "newer.cim") if change.path]
    assert found == [("A", ("name",)), ("b", ("streams",))]
    found = [(c.path, c.aspects) for c in changes(tmp_path / "newer.cim", tmp_path / "newest.cim") if c.path]
    assert found == [("b", ("streams",))]


def test_everything_below_a_changed_type_is_listed(tmp_path: Path) -> None:
    older = make_image(tmp_path, "older.cim", {"x": None, "x\\y": None, "x\\y\\z": b""})
    newer = make_image(tmp_path, "newer.cim", {"x": b""})
    found = [(change.kind, change.path) for change in changes(older, newer) if change.path]
    assert found == [("changed", "x"), ("removed", "x\\y"), ("removed", "x\\y\\z")]


def test_fork_is_compared_without_reading_unchanged_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, bytes | None] = {f"{number}": b"x" * 5000 for number in range(50)}
    older = make_image(tmp_path, "older.cim", files)
    make_image(tmp_path, "newer.cim", {"7": b"y"}, parent="older.cim")
    with cimlayer.ImageReader(older) as one, cimlayer.ImageReader(tmp_path / "newer.cim") as two:
        assert [path for path, _, _ in walk_differences(two, one)] == ["7"]


def test_image_equals_itself(corpus: Path) -> None:
    base = get_cim_path_from_layer(corpus / "base")
    assert changes(base, base) == []


def test_images_that_order_names_in_different_ways_are_compared_by_name(tmp_path: Path) -> None:
    """Windows has had more than one upcase table; here one knows upper-case forms of Georgian letters."""
    names = ["m", "\u1100", "\u1101", "\u10d0", "\u10d1", "\u10ff"]
    (tmp_path / "ours").mkdir()
    ours = make_image(tmp_path / "ours", "ours.cim", dict.fromkeys(names[:-1], b"") | {"n": b""})
    builder = Builder()
    shared = {name: builder.add() for name in names}
    children = link_table([(name, shared[name].to_bytes(4, "little")) for name in names])
    root = builder.add(stream(builder.put(children), len(children), LINKS))
    theirs = builder.save(tmp_path / "theirs.cim", root)
    for letter in names[3:]:
        builder.patch(theirs, "upcase", 2 * ord(letter), (ord(letter) + 0xBC0).to_bytes(2, "little"))
    with cimlayer.ImageReader(theirs) as image:
        assert image.verify().ok
    for pair, kinds in (((ours, theirs), ["removed", "added"]), ((theirs, ours), ["added", "removed"])):
        found = [change for change in changes(*pair) if change.path and change.kind != "changed"]
        assert [change.path for change in found] == ["n", names[-1]]
        assert [change.kind for change in found] == kinds


def deep_image(directory: Path, depth: int) -> Path:
    builder = Builder()
    below = builder.directory({})
    for _ in range(depth):
        below = builder.directory({"x": below})
    return builder.save(directory / "deep.cim", below)


def test_path_is_kept_once_however_deep_the_tree_is(tmp_path: Path) -> None:
    with cimlayer.ImageReader(deep_image(tmp_path, 8000)) as image:
        tracemalloc.start()
        try:
            assert sum(1 for _ in walk_differences(image, image)) == 8000
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


def test_differences_stop_at_the_longest_path(tmp_path: Path) -> None:
    with (
        cimlayer.ImageReader(deep_image(tmp_path, 17_000)) as image,
        pytest.raises(CorruptImageError, match="32,767"),
    ):
        list(diff_images(image, image))


def test_directory_in_itself_is_an_error(tmp_path: Path) -> None:
    """Two names of one directory, which only a damaged image has."""
    with writer(tmp_path, None, "loop.cim") as image:
        image.create_file("outer", attributes=DIRECTORY)
        image.create_file(r"outer\inner", attributes=DIRECTORY)
        add(image, r"outer\inner\x")
        image.commit()
    with cimlayer.ImageReader(tmp_path / "loop.cim") as image:
        outer, inner = image.stat("outer").file_id, image.stat(r"outer\inner").file_id
        region = f"region_{image.region_sets[0].set_id}_0"
    data = (tmp_path / region).read_bytes()
    table = (1).to_bytes(4, "little") + inner.to_bytes(4, "little")
    assert data.count(table) == 1
    (tmp_path / region).write_bytes(data.replace(table, (1).to_bytes(4, "little") + outer.to_bytes(4, "little")))
    with cimlayer.ImageReader(tmp_path / "loop.cim") as one, pytest.raises(CorruptImageError):
        list(diff_images(one, one))
