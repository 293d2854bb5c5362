"""Differences, deltas explained, JSON and .reg text of hives."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cimfs_ext.errors import FormatError
from cimfs_ext.regf import Hive, Value
from cimlayer.formats import hivetext as registry
from cimlayer.formats.hivetext import DeltaChange, KeyChange, ValueChange
from support import hives
from support.hives import INHERIT_CLASS, SUPERSEDE_LOCAL, SUPERSEDE_TREE, TOMBSTONE, Node, Val, build, corpus


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def hive(*subkeys: Node, values: list[Val] | None = None, layered: bool = False) -> Hive:
    return Hive.open(build(Node(values=values or [], subkeys=list(subkeys)), layered=layered), name="test")


INTERPRETED = [
    (1, utf16("text\0"), "text"),
    (1, utf16("no end"), "no end"),
    (1, b"", ""),
    (1, utf16("two\0parts\0"), None),
    (1, b"odd", None),
    (1, b"\0\xd8", None),
    (2, utf16("%SystemRoot%\0"), "%SystemRoot%"),
    (3, b"\1\2", None),
    (4, b"\1\2\0\0", 0x201),
    (4, b"\1\2\0", None),
    (5, b"\0\0\2\1", 0x201),
    (6, utf16("\\Registry\\A"), "\\Registry\\A"),
    (7, utf16("a\0bc\0\0"), ["a", "bc"]),
    (7, utf16("a\0"), ["a"]),
    (7, utf16("\0"), []),
    (7, b"", []),
    (7, utf16("a\0\0b\0\0"), None),
    (11, (2**63).to_bytes(8, "little"), 2**63),
    (0, b"", None),
    (0xFFFF0012, utf16("x\0"), None),
]


@pytest.mark.parametrize(("kind", "data", "expected"), INTERPRETED)
def test_data_is_interpreted_by_type(kind: int, data: bytes, expected: object) -> None:
    value = Value("v", kind, data, False)
    assert registry.interpret(value) == expected
    described = json.loads(json.dumps(registry.value_to_json(value)))
    key, content = ("hex", data.hex()) if expected is None else ("data", expected)
    assert described == {"name": "v", "type": registry.type_name(kind), key: content}


def test_type_names() -> None:
    assert [registry.type_name(kind) for kind in (0, 1, 7, 11)] == [
        "REG_NONE",
        "REG_SZ",
        "REG_MULTI_SZ",
        "REG_QWORD",
    ]
    assert registry.type_name(0xFFFF0012) == "0xffff0012"


def test_diff_lists_added_changed_and_deleted() -> None:
    old = hive(
        Node("Same", [Val("v", 1, b"x")], timestamp=1),
        Node("Gone", [Val("g", 1, b"")], [Node("Below")]),
        Node("CHANGED", [Val("A", 1, b"1"), Val("b", 1, b"2"), Val("c", 1, b"3")], class_name="old"),
    )
    new = hive(
        Node("same", [Val("V", 1, b"x")], timestamp=2),
        Node("Changed", [Val("a", 1, b"1"), Val("b", 3, b"2"), Val("d", 1, b"4")], class_name="new"),
        Node("New", [Val("n", 1, b"")], [Node("Below")]),
    )
    changes = list(registry.diff(old, new))
    assert changes == [
        KeyChange(
            "Changed",
            "changed",
            (
                ValueChange("b", Value("b", 1, b"2", False), Value("b", 3, b"2", False)),
                ValueChange("d", None, Value("d", 1, b"4", False)),
                ValueChange("c", Value("c", 1, b"3", False), None),
            ),
            ("class",),
        ),
        KeyChange("New", "added", (ValueChange("n", None, Value("n", 1, b"", False)),)),
        KeyChange("New\\Below", "added"),
        KeyChange("Gone", "deleted", (ValueChange("g", Value("g", 1, b"", False), None),)),
        KeyChange("Gone\\Below", "deleted"),
    ]
    assert [value.kind for value in changes[0].values] == ["changed", "added", "deleted"]
    assert json.loads(json.dumps(changes[0].to_json()))["values"][1] == {
        "name": "d",
        "kind": "added",
        "new": {"name": "d", "type": "REG_SZ", "hex": "34"},
    }


def test_diff_sees_security_and_symlinks_but_not_times() -> None:
    old = hive(Node("a", timestamp=1), Node("b", security=b"\1" * 20), Node("c"))
    new = hive(Node("a", timestamp=9), Node("b", security=b"\2" * 20), Node("c", flags=0x10))
    assert list(registry.diff(old, new)) == [
        KeyChange("b", "changed", properties=("security",)),
        KeyChange("c", "changed", properties=("symlink",)),
    ]


def test_diff_of_a_hive_with_itself_is_empty() -> None:
    left, right = (Hive.open(corpus("SOFTWARE_26100")) for _ in range(2))
    assert list(registry.diff(left, right)) == []


@pytest.mark.parametrize("names", ["I\u0131", "S\u017f", "\u00b5\u03bc", "\u03a3\u03c2", "\U00010400\U00010428"])
def test_names_that_are_two_in_a_hive_are_two_in_a_diff(names: str) -> None:
    def made(*, values: bool) -> Hive:
        return hive(*map(Node, names), values=[Val(name, 3, name.encode()) for name in names] if values else [])

    assert [key.name for key in made(values=False).root.subkeys()] == sorted(names)
    assert list(registry.diff(made(values=True), made(values=True))) == []
    (added,) = registry.diff(made(values=False), made(values=True))
    assert [(value.kind, value.name) for value in added.values] == [("added", name) for name in names]


def test_diff_before_and_after_a_merge_is_what_the_delta_explains() -> None:
    before, after = (Hive.open(corpus("OffHive")) for _ in range(2))
    delta = Hive.open(corpus("System_Delta"))
    after.merge(delta)
    added = {change.path for change in registry.diff(before, after) if change.kind == "added"}
    dropped = {change.path for change in registry.explain(delta) if change.kind == "delete"}
    assert added == {key.path for key in delta.walk() if key.path} - dropped
    assert len(dropped) == 2


def test_explain_a_delta() -> None:
    delta = hive(
        Node(
            "Way",
            subkeys=[Node("Set", [Val("v", 1, b"x"), Val("t", tombstone=True)], layering=INHERIT_CLASS)],
        ),
        Node("Dead", subkeys=[Node("Ignored")], layering=TOMBSTONE),
        Node("Local", [Val("v", 1, b"x")], layering=SUPERSEDE_LOCAL),
        Node("Tree", layering=SUPERSEDE_TREE | INHERIT_CLASS, subkeys=[Node("Leaf")]),
        layered=True,
    )
    one = Value("v", 1, b"x", False)
    changes = list(registry.explain(delta))
    assert changes == [
        DeltaChange("Dead", "delete"),
        DeltaChange("Local", "replace values", (one,)),
        DeltaChange("Tree", "replace tree"),
        DeltaChange("Tree\\Leaf", "merge"),
        DeltaChange("Way\\Set", "merge", (one,), ("t",)),
    ]
    assert json.loads(json.dumps(changes[-1].to_json())) == {
        "path": "Way\\Set",
        "kind": "merge",
        "sets": [{"name": "v", "type": "REG_SZ", "hex": "78"}],
        "deletes": ["t"],
    }


def test_empty_delta_does_nothing() -> None:
    assert list(registry.explain(Hive.open(corpus("EmptyHive")))) == []


def test_reg_text() -> None:
    exported = registry.reg_text(
        hive(
            Node("Sub", [Val("none"), Val("long", 3, bytes(range(40)))]),
            values=[
                Val("", 1, utf16("def\0")),
                Val('quo"te\\', 1, utf16('C:\\a "b"\0')),
                Val("number", 4, b"\x1f\0\0\0"),
                Val("short number", 4, b"\x1f"),
                Val("expand", 2, utf16("%a%\0")),
                Val("line", 1, utf16("a\nb\0")),
                Val("open", 1, utf16("a")),
                Val("empty", 3),
                Val("property", 0xFFFF0012, b"\1"),
            ],
        ),
        root="HKEY_LOCAL_MACHINE\\SOFTWARE",
    )
    assert exported.split("\r\n") == [
        "Windows Registry Editor Version 5.00",
        "",
        "[HKEY_LOCAL_MACHINE\\SOFTWARE]",
        '@="def"',
        '"quo\\"te\\\\"="C:\\\\a \\"b\\""',
        '"number"=dword:0000001f',
        '"short number"=hex(4):1f',
        '"expand"=hex(2):25,00,61,00,25,00,00,00',
        '"line"=hex(1):61,00,0a,00,62,00,00,00',
        '"open"=hex(1):61,00',
        '"empty"=hex:',
        '"property"=hex(ffff0012):01',
        "",
        "[HKEY_LOCAL_MACHINE\\SOFTWARE\\Sub]",
        '"none"=hex(1):',
        '"long"=hex:00,01,02,03,04,05,06,07,08,09,0a,0b,0c,0d,0e,0f,10,11,12,13,14,15,\\',
        "  16,17,18,19,1a,1b,1c,1d,1e,1f,20,21,22,23,24,25,26,27",
        "",
        "",
    ]


def test_reg_text_of_a_delta_deletes() -> None:
    delta = hive(
        Node("Dead", layering=TOMBSTONE),
        Node("Tree", [Val("t", tombstone=True)], layering=SUPERSEDE_TREE),
        layered=True,
    )
    assert registry.reg_text(delta, root="R").split("\r\n")[2:] == [
        "[R]", "", "[-R\\Dead]", "", "[-R\\Tree]", "", "[R\\Tree]", '"t"=-', "", "",
    ]  # fmt: skip


@pytest.mark.parametrize("broken", [Node("a\nb"), Node("a", [Val("v\r")]), Node("a", [Val("v\0")])])
def test_reg_text_refuses_names_that_break_lines(broken: Node) -> None:
    with pytest.raises(FormatError, match=r"cannot stand in \.reg text"):
        registry.reg_text(hive(broken))


def test_reg_text_of_a_missing_key() -> None:
    with pytest.raises(FileNotFoundError):
        registry.reg_text(hive(), "missing")


def test_reg_file_is_utf16_with_a_mark() -> None:
    exported = registry.reg_file(Hive.open(corpus("UnicodeHive")), root="R")
    assert exported[:2] == b"\xff\xfe"
    assert "[R\\Привет\\Ключ]\r\n" in exported.decode("utf-16")


def test_long_value_names_do_not_break_the_wrapping() -> None:
    lines = registry.reg_text(hive(values=[Val("n,:" * 50, 3, bytes(60))])).split("\r\n")[3:]
    joined = re.sub(r"\\\r\n  ", "", "\r\n".join(lines))
    assert joined.splitlines()[0] == f'"{"n,:" * 50}"=hex:{bytes(60).hex(",")}'


LONG_NAMES = ["n" * 90, "C:\\lib,-1 " + "n" * 90, "n," * 45, "n:" * 45, "n" * 74 + ",", ":" + "n" * 73 + ","]
LONG_DATA = [
    (Val("", tombstone=True), "-"),
    (Val("", 4, b"\1\0\0\0"), "dword:00000001"),
    (Val("", 1, utf16("a,b:c\0")), '"a,b:c"'),
    (Val("", 3, b""), "hex:"),
    (Val("", 3, b"\1"), "hex:01"),
    (Val("", 7, bytes(80)), f"hex(7):{bytes(80).hex(',')}"),
]


@pytest.mark.parametrize("name", LONG_NAMES)
@pytest.mark.parametrize(("value", "data"), LONG_DATA)
def test_lines_break_in_hexadecimal_data_alone(name: str, value: Val, data: str) -> None:
    delta = hive(values=[Val(name, value.type, value.data, value.tombstone)], layered=True)
    lines = registry.reg_text(delta).split("\r\n")[3:-2]
    assert all(line.endswith(",\\") for line in lines[:-1])
    start = f'"{name}"='.replace("\\", "\\\\")
    assert lines[0].startswith(start)
    assert "".join(line.removesuffix("\\").removeprefix("  ") for line in lines) == start + data


def test_large_data_takes_time_in_proportion() -> None:
    data = bytes(4 << 20)  # minutes, if what is left were copied for each line
    lines = registry.reg_text(hive(values=[Val("large", 3, data)])).split("\r\n")[3:-2]
    assert "".join(line.removesuffix("\\").removeprefix("  ") for line in lines) == f'"large"=hex:{data.hex(",")}'


@pytest.mark.parametrize("name", ["SOFTWARE_26100", "NTUSER.DAT", "SAM"])
def test_exported_text_imports_to_the_same_hive(name: str, tmp_path: Path) -> None:
    program = shutil.which("hivexregedit")
    if program is None:
        pytest.skip("hivexregedit is not installed")
    source, target, text = Hive.open(corpus(name)), tmp_path / "hive", tmp_path / "export.reg"
    text.write_text(registry.reg_text(source, root="R"), encoding="utf-8", newline="")
    target.write_bytes(corpus("EmptyHive"))
    command = [program, "--merge", "--prefix", "R", "--encoding", "UTF-16LE", target, text]
    subprocess.run(command, check=True, env={**os.environ, "PERL_UNICODE": "D"})
    imported = {path: values for path, (_, _, values) in hives.our_tree(Hive.open(target)).items()}
    assert imported == {path: values for path, (_, _, values) in hives.our_tree(source).items()}
