"""Layers that a program of others' making described: the tree after import equals their manifests, field by field."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimlayer.layer.paths import get_cim_path_from_layer
from support.corpus import KEPT_ATTRIBUTES, PARENTS, eas_of, is_managed, manifest_of
from support.descriptors import parts_of
from support.shared import SHARED_LAYERS, needs_layers

pytestmark = needs_layers


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All layers of the corpus, imported as they depend on each other."""
    root = tmp_path_factory.mktemp("layers")
    for name, parents in PARENTS.items():
        cimlayer.import_layer(
            SHARED_LAYERS / f"{name}.tar.gz", root / name, [root / parent for parent in parents], sync=False
        )
    return root


def tree_of(image: cimlayer.ImageReader) -> dict[str, cimlayer.ImageEntry]:
    return dict(image.walk())


def differences(
    image: cimlayer.ImageReader, path: str, entry: cimlayer.ImageEntry, expected: dict[str, Any]
) -> list[str]:
    """How an entry differs from its line in the manifest."""
    found: dict[str, Any] = {
        "path": path,
        "type": "dir" if entry.is_directory else "file",
        "size": entry.size,
        "attributes": entry.attributes,
        "creation_time": entry.creation_time,
        "last_write_time": entry.last_write_time,
        "change_time": entry.change_time,
        "last_access_time": entry.last_access_time,
        "sd": image.security_descriptor(entry).hex(),
        "reparse": image.reparse_data(entry).hex(),
        "eas": eas_of(image.extended_attributes(entry)),
        "streams": {
            stream.name: (stream.size, hashlib.sha256(image.read(entry, stream.name)).hexdigest())
            for stream in image.streams(entry)
        },
    }
    wanted = {key: expected.get(key) for key in found}
    wanted["attributes"] = expected["attributes"] & KEPT_ATTRIBUTES
    wanted["reparse"] = expected.get("reparse", "")
    wanted["eas"] = {ea["name"]: ea["value"] for ea in expected.get("eas", ())}
    wanted["streams"] = {s["name"]: (s["size"], s["sha256"]) for s in expected.get("streams", ())}
    if not entry.is_directory:
        found["sha256"] = hashlib.sha256(image.read(entry)).hexdigest()
        wanted["sha256"] = expected["sha256"]
    if "sddl" in expected:
        found["sd"] = parts_of(bytes.fromhex(found["sd"]))
        wanted["sd"] = parts_of(bytes.fromhex(expected["sd"]))
    unspecified = set(expected.get("unspecified", ()))
    return [
        f"{path}: {key}: {found[key]!r} instead of {wanted[key]!r}"
        for key in found
        if found[key] != wanted[key] and key not in unspecified
    ]


@pytest.mark.parametrize("name", PARENTS)
def test_tree_equals_the_manifest(layers: Path, name: str) -> None:
    manifest = manifest_of(name)
    rules = manifest["managed_rules"]
    expected = {entry["path"]: entry for entry in manifest["entries"]}
    with cimlayer.ImageReader(get_cim_path_from_layer(layers / name)) as image:
        tree = tree_of(image)
        ours = {path for path in tree if not is_managed(path, rules)}
        theirs = {path for path in expected if not is_managed(path, rules)}
        assert ours == theirs
        wrong = [line for path in sorted(ours) for line in differences(image, path, tree[path], expected[path])]
        assert not wrong[:20]
        groups: dict[int, set[str]] = {}
        for path in ours:
            groups.setdefault(tree[path].file_id, set()).add(path)
        wanted: dict[int, set[str]] = {}
        for path in theirs:
            if "link_group" in expected[path]:
                wanted.setdefault(expected[path]["link_group"], set()).add(path)
        linked = {frozenset(group) for group in groups.values() if len(group) > 1}
        assert linked == {frozenset(group) for group in wanted.values() if len(group) > 1}


@pytest.mark.parametrize("name", PARENTS)
def test_image_verifies(layers: Path, name: str) -> None:
    with cimlayer.ImageReader(get_cim_path_from_layer(layers / name)) as image:
        report = image.verify()
    assert report.ok, report.problems
    assert report.unjudged == 0
