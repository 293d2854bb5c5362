"""What the command prints with --json is what docs/json-schema.json says, for every command that has the option."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from cimfs_ext.filetimes import time_text
from cimfs_ext.image import ImageWriter
from cimlayer.cli.output import json_text
from cimlayer.cli.program import commands
from support import ROOT
from support.commands import call
from support.containers import Store, base_tar, gzipped
from support.hives import Builder, Node, Val
from support.images import make_image

SCHEMA = json.loads((ROOT / "docs" / "json-schema.json").read_text("utf-8"))
REG_QWORD = 11


def strict(schema: Any) -> Any:
    """The same schema, without the freedom to add members."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(each) for name, each in schema.items()}
    return closed | {"additionalProperties": False} if "properties" in schema and "type" in schema else closed


def check(name: str, line: str) -> Any:
    """A line as the schema of that name has it; its value."""
    value = json.loads(line)
    assert line.isascii()
    schema = strict(SCHEMA) | {"$ref": f"#/$defs/{name}"}
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(value)
    return value


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the sample layers, damage, hives and a container image."""
    root = tmp_path_factory.mktemp("json")
    shutil.copytree(ROOT / "examples", root / "examples")
    assert call("import", root / "examples" / "sample-layer.tar", root / "layers" / "1", "--no-sync").exit_code == 0
    child = ("import", root / "examples" / "sample-child.tar", root / "layers" / "2", "--parent", root / "layers" / "1")
    assert call(*child, "--no-sync").exit_code == 0
    shutil.copytree(root / "layers", root / "damaged")
    region = next(file for file in (root / "damaged").rglob("region_*") if b"Hello from the child" in file.read_bytes())
    region.write_bytes(region.read_bytes().replace(b"Hello from the child", b"Hello from the chill"))
    store = Store()
    layer = base_tar(a=b"a")
    store.layout(root / "container", [store.image([gzipped(layer)])])
    (root / "list").write_text(f"{root / 'container'}\n{root / 'nothing'}\n", encoding="utf-8")
    assert call("import-image", root / "container", root / "store", "--no-sync").exit_code == 0
    make_image(root, "one.cim", {"a": b"", "b": b""})
    (root / "changes").write_text("delete a\n", encoding="utf-8")
    value = Val("Large", REG_QWORD, struct.pack("<Q", 2**63))
    builder = Builder(minor=6, layered=True)
    (root / "hive").write_bytes(builder.file(builder.key(Node("", [value, Val("Gone", tombstone=True)]))))
    yield root
    shutil.rmtree(root)


def with_json(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[str]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from with_json(command, (*words, name))
        elif any("--json" in option.opts for option in command.params):
            yield " ".join((*words, name))


CALLS = [  # where "x" is a name of its own for each call
    ("import", "examples/sample-layer.tar x --no-sync"),
    ("import-image", "container x --no-sync"),
    ("import-images", "list x --jobs 1 --no-sync"),
    ("images", "container"),
    ("store ls", "store"),
    ("store check", "store"),
    ("store gc", "store --keep 0 --dry-run"),
    ("ls", "layers/2 -R"),
    ("ls", "layers/2 Files/App/**"),
    ("stat", "layers/2 **"),
    ("stat", "layers/2 /"),
    ("find", "layers/2 --type link"),
    ("grep", "Hello layers/2"),
    ("grep", "MZ|regf layers/2"),
    ("du", "layers/2"),
    ("du", "layers/2 --layers"),
    ("verify", "layers/1 layers/2"),
    ("verify", "damaged/2"),
    ("inspect", "layers/2"),
    ("inspect", "layers/cim-layers"),
    ("diff", "layers/1 layers/2"),
    ("diff", "layers/2 layers/1"),
    ("chain", "layers/2"),
    ("extract", "layers/2 x"),
    ("export-image", "layers/2 oci:x --os-version 10.0.20348.1"),
    ("create", "x.cim examples --no-sync"),
    ("update", "one.cim changes --no-sync"),
    ("gc", "layers"),
    ("hive show", "layers/2"),
    ("hive show", "layers/2 SYSTEM -R"),
    ("hive show", "hive"),
    ("hive diff", "hive"),
    ("hive diff", "layers/1 layers/2"),
]


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_every_line_is_as_the_schema_says(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: str
) -> None:
    monkeypatch.chdir(place)
    words = [
        word.replace("x", str(tmp_path / "x"), 1) if word in ("x", "x.cim", "oci:x") else word
        for word in arguments.split()
    ]
    result = call(*name.split(), *words, "--json")
    assert result.exit_code == ("damaged" in arguments or "list" in arguments), result.stderr
    lines = result.stdout.splitlines()
    assert lines or name in ("hive diff", "store check")
    for line in lines:
        check(name, line)


def test_every_command_with_the_option_is_tried_and_described() -> None:
    names = set(with_json(commands))
    assert names == {name for name, _ in CALLS}
    assert names <= set(SCHEMA["$defs"])


def test_a_member_that_is_not_described_is_noticed() -> None:
    record = {"change": "added", "path": "a", "aspects": []}
    check("diff", json.dumps(record))
    for wrong in (record | {"more": 1}, record | {"path": None}, {"path": "a"}):
        with pytest.raises(jsonschema.ValidationError):
            check("diff", json.dumps(wrong))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    referred = {part.partition('"')[0] for part in json.dumps(SCHEMA).split('"#/$defs/')[1:]}
    assert referred <= set(SCHEMA["$defs"])


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ("ls missing", "ImageNotFoundError"),
        ("stat layers/2 missing", "PathNotFoundError"),
        ("verify examples/sample-layer.tar", "CorruptImageError"),
        ("import examples/sample-child.tar x", "FormatError"),
        ("import examples/sample-layer.tar x --limit files=3", "LimitError"),
        ("gc missing", "FileNotFoundError"),
        ("hive show layers/2 SYSTEM missing", "KeyNotFoundError"),
        ("extract layers/2 examples", "FileExistsError"),
    ],
)
def test_the_last_line_of_a_failure_is_an_error_object(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, kind: str
) -> None:
    monkeypatch.chdir(place)
    (place / "examples" / "layout").touch()  # in the way of extract
    result = call(*arguments.replace(" x", f" {tmp_path / 'x'}").split(), "--json")
    assert result.exit_code == 1
    record = check("error", result.stderr.splitlines()[-1])
    assert record["type"] == kind
    if kind == "LimitError":
        assert (record["limit"], record["layer"]) == ("files", str(tmp_path / "x"))
        assert record["offset"] > 0


def test_a_damaged_image_among_several_does_not_keep_the_others_from_being_verified(place: Path) -> None:
    result = call("verify", place / "examples" / "sample-layer.tar", place / "layers" / "2", "--json")
    assert result.exit_code == 1
    assert check("verify", result.stdout)["ok"]
    assert check("error", result.stderr)["path"] == str(place / "examples" / "sample-layer.tar")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**53 - 1, "9007199254740991"),
        (2**53, '"9007199254740992"'),
        ([{"a": -(2**63)}], '[{"a": "-9223372036854775808"}]'),
        ({"filetime": 2**60}, '{"filetime": 1152921504606846976}'),
    ],
)
def test_integers_that_others_would_round_are_strings(value: object, text: str) -> None:
    assert json_text(value) == text


def test_times_beyond_the_calendar_are_numbers(tmp_path: Path) -> None:
    with ImageWriter(tmp_path, None, "one.cim", sync=False) as writer:
        writer.create_file("late", last_write_time=2**63 - 1, creation_time=0)
        writer.commit()
    record = check("ls", call("ls", tmp_path / "one.cim", "late", "--json").stdout)
    assert record["last_write_time"] == f"FILETIME {2**63 - 1}" == time_text(2**63 - 1)
    record = check("stat", call("stat", tmp_path / "one.cim", "late", "--json").stdout)
    assert record["last_write_time"] == {"iso": None, "filetime": 2**63 - 1}
