"""export_layer: the corpus."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimlayer.oci.export_layer import export_layer
from support.corpus import KEPT_ATTRIBUTES, PARENTS, is_managed, manifest_of
from support.descriptors import parts_of
from support.exports import DIRECTORY, facts
from support.platforms import same_everywhere
from support.trees import assert_equal_trees


@pytest.fixture(scope="module")
def tars(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    for name, parents in PARENTS.items():
        export_layer(corpus / name, [corpus / parent for parent in parents], root / f"{name}.tar")
    return root


@pytest.fixture(scope="module")
def again(tars: Path) -> Path:
    for name, parents in PARENTS.items():
        above = [tars / parent for parent in parents]
        cimlayer.import_layer(tars / f"{name}.tar", tars / name, above, sync=False, reproducible=True)
    return tars


@pytest.mark.parametrize("name", PARENTS)
def test_export_and_import_give_the_same_tree(corpus: Path, again: Path, name: str) -> None:
    assert_equal_trees(corpus / name, again / name)


@pytest.mark.parametrize("name", PARENTS)
def test_export_of_the_import_of_an_export_is_the_same_tar(again: Path, tmp_path: Path, name: str) -> None:
    export_layer(again / name, [again / parent for parent in PARENTS[name]], tmp_path / "tar")
    assert (tmp_path / "tar").read_bytes() == (again / f"{name}.tar").read_bytes()


def apply_tar(tree: dict[str, dict[str, Any]], tar: Path) -> None:
    """A simple overlay: entries by their upper-case path, a hard link as another reference to the same facts."""
    previous = ""
    with tarfile.open(tar) as archive:
        for member in archive:
            directory, _, name = member.name.rpartition("/")
            content = archive.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]
            if name.startswith(".wh."):
                remove(tree, f"{directory}/{name[4:]}")
                continue
            if ":" in name:
                file, _, stream = member.name.rpartition(":")
                assert file == previous
                tree[file.upper()]["streams"][stream] = (len(content), hashlib.sha256(content).hexdigest())
                continue
            previous = member.name
            key = member.name.upper()
            new = tree[member.linkname.upper()] if member.islnk() else facts(member, content)
            if member.islnk() or not new["attributes"] & DIRECTORY:
                remove(tree, member.name)
            elif key in tree:
                new["path"] = tree[key]["path"]
                new["streams"] = tree[key]["streams"]
            tree[key] = new
            new.setdefault("names", {})[key] = member.name.replace("/", "\\")


def remove(tree: dict[str, dict[str, Any]], path: str) -> None:
    key = path.upper()
    for other in [one for one in tree if one == key or one.startswith(key + "/")]:
        tree.pop(other)["names"].pop(other)


@same_everywhere
@pytest.mark.parametrize("name", PARENTS)
def test_exports_read_by_a_simple_reader_equal_the_manifest(tars: Path, name: str) -> None:
    manifest = manifest_of(name)
    rules = manifest["managed_rules"]
    tree: dict[str, dict[str, Any]] = {}
    for layer in [*reversed(PARENTS[name]), name]:
        apply_tar(tree, tars / f"{layer}.tar")
    expected = {entry["path"]: entry for entry in manifest["entries"] if not is_managed(entry["path"], rules)}
    found = {
        path: one for key, one in tree.items() if not is_managed(path := one["names"].get(key, one["path"]), rules)
    }
    assert found.keys() == expected.keys()
    groups: dict[int, int] = {}
    for path, entry in expected.items():
        wanted = dict.fromkeys(("creation_time", "last_write_time", "change_time", "last_access_time"))
        wanted = {key: entry[key] for key in wanted}
        wanted["attributes"] = entry["attributes"] & KEPT_ATTRIBUTES
        wanted["eas"] = {ea["name"]: ea["value"] for ea in entry.get("eas", ())}
        wanted["streams"] = {s["name"]: (s["size"], s["sha256"]) for s in entry.get("streams", ())}
        wanted["sha256"] = None if "reparse" in entry else entry.get("sha256")
        wanted["mount_point"] = entry.get("reparse", "").startswith("030000a0")
        for key in entry.get("unspecified", ()):
            wanted.pop(key, None)
        assert {key: found[path][key] for key in wanted} == wanted, path
        if "sd" not in entry.get("unspecified", ()):
            assert parts_of(found[path]["sd"]) == parts_of(bytes.fromhex(entry["sd"])), path
        if "link_group" in entry:
            assert groups.setdefault(entry["link_group"], id(found[path])) == id(found[path])


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="bsdtar is not installed")
@pytest.mark.parametrize("name", PARENTS)
def test_bsdtar_lists_every_entry(tars: Path, name: str) -> None:
    listed = subprocess.run(
        ["bsdtar", "-tvf", tars / f"{name}.tar"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert listed.stderr == b""
    with tarfile.open(tars / f"{name}.tar") as archive:
        assert len(listed.stdout.splitlines()) == len(archive.getmembers())
