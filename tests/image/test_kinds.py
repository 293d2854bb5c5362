"""The table of the kinds of metadata: a row that is added is everywhere, and the documentation names all of them."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import re
import tarfile
from pathlib import Path

import pytest

import cimlayer
from cimfs_ext.entries import ImageEntry
from cimfs_ext.image import ImageWriter
from cimlayer.errors import FormatError
from cimlayer.image import kinds
from cimlayer.image.create import create_image
from cimlayer.image.extract import extract
from cimlayer.image.metadata import attribute_names, attribute_value
from cimlayer.oci.export_layer import export_layer
from support import ROOT
from support.commands import succeed
from support.image_layers import bare_layer
from support.images import METADATA, add, make_image
from support.platforms import posix_only


def object_id(image: cimlayer.ImageReader, entry: ImageEntry) -> bytes:
    """Differs between a layer and its parent."""
    return b"" if entry.is_directory else f"{entry.name} of {image.name}".encode()


OBJECT_ID = kinds.buffer_kind(
    "object_id",
    "object ID",
    object_id,
    export=lambda _info, _entry, data: {"MSWINDOWS.objectid": kinds.as_base64(data)} if data else {},
)


def added(patch: pytest.MonkeyPatch, kind: kinds.ValueKind[bytes]) -> None:
    patch.setattr(kinds, "KINDS", (*kinds.KINDS, kind))


def layer_of_a_file(directory: Path) -> Path:
    def fill(image: ImageWriter) -> None:
        add(image, "Files", attributes=0x10)
        add(image, r"Files\a", b"content", attributes=0x20)

    return bare_layer(directory, "layer", fill)


def test_an_added_kind_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(tmp_path, "one.cim", {"d": None, "a": b"x"})
    added(monkeypatch, OBJECT_ID)
    facts = json.loads(succeed("stat", image, "a", "--json"))
    assert facts["object_id"] == {"base64": base64.b64encode(b"a of one.cim").decode()}
    assert json.loads(succeed("stat", image, "d", "--json"))["object_id"] is None
    assert re.search(r'^object ID +"a of one.cim"$', succeed("stat", image, "a"), re.MULTILINE)
    assert "object ID" not in succeed("stat", image, "d")


def test_an_added_kind_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [make_image(tmp_path, f"{name}.cim", {"d": None, "a": b"x"}) for name in ("one", "two")]
    of_root = "M / (times)\n"
    assert succeed("diff", *images) == of_root
    added(monkeypatch, OBJECT_ID)
    assert succeed("diff", *images) == of_root + "M a (object_id)\n"


def test_an_added_kind_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(tmp_path, "one.cim", {"d": None, "a": b"x"})
    added(monkeypatch, OBJECT_ID)
    with cimlayer.ImageReader(image) as reader:
        extract(reader, "", tmp_path / "out", metadata="sidecar")
        entry = reader.stat("a")
        assert "user.cimlayer.object_id" in attribute_names(reader, entry)
        assert attribute_value(reader, entry, "user.cimlayer.object_id") == b"a of one.cim"
        assert attribute_value(reader, reader.stat("d"), "user.cimlayer.object_id") is None
    records = [json.loads(line) for line in (tmp_path / "out.metadata/entries.jsonl").read_text("utf-8").splitlines()]
    noted = {record["path"]: record.get("object_id") for record in records}
    assert noted == {"d": None, "a": base64.b64encode(b"a of one.cim").decode()}


@posix_only("extended attributes of files")
def test_an_added_kind_is_an_extended_attribute_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(tmp_path, "one.cim", {"d": None, "a": b"x"})
    added(monkeypatch, OBJECT_ID)
    attached: dict[str, bytes] = {}
    monkeypatch.setattr(os, "setxattr", lambda _fd, name, value: attached.update({name.decode(): value}))
    with cimlayer.ImageReader(image) as reader:
        extract(reader, "", tmp_path / "attached", metadata="xattr")
    assert attached["user.cimlayer.object_id"] == b"a of one.cim"


def test_an_added_kind_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of_a_file(tmp_path)
    added(monkeypatch, OBJECT_ID)
    output = io.BytesIO()
    export_layer(layer, [], output)
    output.seek(0)
    with tarfile.open(fileobj=output) as tar:
        records = {member.name: member.pax_headers.get("MSWINDOWS.objectid") for member in tar}
    assert records == {"Files": None, "Files/a": base64.b64encode(b"a of layer.cim").decode()}


def test_a_directory_that_differs_in_an_added_kind_alone_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = layer_of_a_file(tmp_path)
    layer = bare_layer(tmp_path, "child", lambda image: add(image, r"Files\new"), "layer")
    in_directories = dataclasses.replace(OBJECT_ID, value=lambda image, _entry: image.name.encode())

    def names() -> list[str]:
        output = io.BytesIO()
        export_layer(layer, [parent], output)
        output.seek(0)
        with tarfile.open(fileobj=output) as tar:
            return tar.getnames()

    assert names() == ["Files/new"]
    added(monkeypatch, in_directories)
    assert names() == ["Files", "Files/new"]


def test_a_kind_that_no_tar_can_carry_is_not_lost_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of_a_file(tmp_path)
    added(monkeypatch, kinds.buffer_kind("object_id", "object ID", object_id))
    with pytest.raises(FormatError, match="cannot carry this: object ID") as caught:
        export_layer(layer, [], io.BytesIO())
    assert caught.value.what == r"Files\a"


def test_what_a_kind_has_of_the_host_is_created_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").write_bytes(b"x")
    tag = METADATA["extended_attributes"]
    hidden = dataclasses.replace(kinds.ATTRIBUTES, of_host=lambda _status, _leads_to_directory: 2)
    tagged = dataclasses.replace(kinds.EXTENDED_ATTRIBUTES, of_host=lambda _status, _leads_to_directory: tag)
    rest = [kind for kind in kinds.KINDS if kind not in (kinds.ATTRIBUTES, kinds.EXTENDED_ATTRIBUTES)]
    monkeypatch.setattr(kinds, "KINDS", (hidden, tagged, *rest))
    create_image(tmp_path / "image.cim", tmp_path / "folder", metadata="none", sync=False)
    with cimlayer.ImageReader(tmp_path / "image.cim") as image:
        assert image.stat("a").attributes == 2
        assert image.extended_attributes("a") == tag


def test_names_are_told_apart() -> None:
    names = [kind.name for kind in kinds.KINDS]
    assert len(set(names)) == len(names)
    assert not {"name", "type", "content"} & set(names)  # the other aspects of differences


def test_aspects_of_a_change_are_documented() -> None:
    compared = [kind.name for kind in kinds.value_kinds()] + [kinds.STREAMS.name]
    documented = re.findall("``([a-z_]+)``", cimlayer.Change.__doc__ or "")
    assert [name for name in documented if name not in ("aspects", "name", "type", "content")] == compared


def test_the_documentation_names_all_kinds() -> None:
    page = " ".join((ROOT / "docs/architecture.md").read_text("utf-8").split())
    found = re.search(r"kinds of metadata that a file can have \(([^)]+)\)", page)
    assert found is not None
    assert sorted(found[1].split(", ")) == sorted(kind.label for kind in kinds.KINDS)
