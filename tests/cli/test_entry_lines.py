"""What ls and find print of entries, whatever these are: what a few lines of Python make of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimfs_ext.entries import ImageEntry
from cimfs_ext.entrylines import EntryLines
from cimfs_ext.filetimes import iso_time
from cimfs_ext.reader import ImageReader
from cimlayer.cli.output import amount
from cimlayer.errors import FormatError
from cimlayer.formats.reparse import parse_reparse_data
from support.cimbytes import Builder, stream, upcased
from support.commands import call
from support.image_layers import link_data
from support.platforms import examples

ATTRIBUTES = {
    0x10: ("d", "directory"),
    0x20: ("a", "archive"),
    0x01: ("r", "read-only"),
    0x02: ("h", "hidden"),
    0x04: ("s", "system"),
    0x400: ("l", "reparse-point"),
    0x200: ("p", "sparse"),
}

CHARACTERS = st.one_of(
    st.sampled_from("ab1 .:'\"\n\r\t\b\f\v\x01\x1b\x7f\x85\x9bäéß漢\u2028\u202e\ue000\ufffe😀\ud83d\ude00\ud800\udc80"),
    st.characters(exclude_characters="\0/\\"),
)
NAMES = st.text(CHARACTERS, min_size=1, max_size=9).filter(lambda name: "\0" not in name)
TIMES = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 2_650_467_743_999_999_999))
REPARSE_DATA = st.one_of(
    st.just(b""),
    st.text(CHARACTERS | st.just("\\"), max_size=9).map(link_data),
    st.binary(min_size=1, max_size=20),
)
FILES = st.fixed_dictionaries(
    {
        "flags": st.integers(0, 31),
        "size": st.one_of(st.integers(0, 3000), st.integers(0, (1 << 48) - 1)),
        "written": TIMES,
        "reparse": REPARSE_DATA,
        "tag": st.integers(0, (1 << 32) - 1),
    }
)


def directories(nodes: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    children = st.lists(st.tuples(NAMES, nodes), max_size=4, unique_by=lambda child: upcased(child[0])).map(dict)
    return st.fixed_dictionaries({"children": children, "written": TIMES, "reparse": REPARSE_DATA})


TREES = directories(st.recursive(FILES, directories, max_leaves=12))


def put(builder: Builder, node: dict[str, Any]) -> int:
    data = node["reparse"]
    fields = {"written": node["written"], "reparse": builder.counted(data) if data else 0}
    if "children" in node:
        return builder.directory({name: put(builder, child) for name, child in node["children"].items()}, **fields)
    content = stream(0, node["size"], sparse=True)
    return builder.add(content, flags=node["flags"], tag=node["tag"], **fields)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lines") / "a.cim"


# ---- the same in a few lines ----


def below(image: ImageReader, directory: ImageEntry, path: str, deep: bool) -> Iterator[tuple[str, ImageEntry]]:
    for entry in image.listdir(directory):
        inner = f"{path}/{entry.name}" if path else entry.name
        yield inner, entry
        if deep and entry.is_directory:
            yield from below(image, entry, inner, deep)


def time_of(filetime: int) -> str:
    try:
        time = datetime(1601, 1, 1) + timedelta(microseconds=filetime // 10)
    except OverflowError:
        return ""
    return f"{time.replace(microsecond=0).isoformat()}.{filetime % 10**7:07}Z" if filetime >= 0 else ""


def target_of(image: ImageReader, entry: ImageEntry) -> str | None:
    try:
        return parse_reparse_data(image.reparse_data(entry)).target
    except FormatError:
        return None


def as_json(image: ImageReader, path: str, entry: ImageEntry) -> str:
    record: dict[str, Any] = {
        "path": path,
        "type": "directory" if entry.is_directory else "file",
        "size": entry.size,
        "attributes": [name for bit, (_, name) in ATTRIBUTES.items() if entry.attributes & bit],
        "last_write_time": time_of(entry.last_write_time) or f"FILETIME {entry.last_write_time}",
        "file_id": entry.file_id,
    }
    if entry.is_reparse_point:
        record |= {"reparse_tag": entry.reparse_tag, "target": target_of(image, entry)}
    return json.dumps(record)


def shown(text: str, color: str, colored: bool) -> str:
    if not colored:
        return text
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"\x1b[{color}m{safe}\x1b[0m" if color else safe


def as_text(image: ImageReader, name: str, entry: ImageEntry, options: str, colored: bool) -> str:
    color = "36" if entry.is_reparse_point else "1;34" if entry.is_directory else ""
    line = shown(name + "/" * entry.is_directory, color, colored)
    if "l" not in options:
        return line
    letters = "".join(letter if entry.attributes & bit else "-" for bit, (letter, _) in ATTRIBUTES.items())
    size = "" if entry.is_directory else amount(entry.size) if "h" in options else str(entry.size)
    time = time_of(entry.last_write_time)[:19].replace("T", " ") or "-"
    target = target_of(image, entry) if entry.is_reparse_point else ""
    return f"{letters} {size:>12} {time:<19} {line}" + (shown(f" -> {target}", "", colored) if target else "")


@given(TIMES)
def test_times_are_those_of_the_calendar(filetime: int) -> None:
    assert iso_time(filetime) == (time_of(filetime) or None)


@settings(max_examples=examples(50), deadline=None)
@given(
    TREES,
    st.sampled_from(["ls", "find"]),
    st.sampled_from(["", "R", "l", "lR", "lRh", "json", "jsonR"]),
    st.booleans(),
)
def test_lines_are_those_of_a_few_lines_of_python(
    place: Path, tree: dict[str, Any], command: str, form: str, colored: bool
) -> None:
    builder = Builder()
    builder.save(place, put(builder, tree))
    deep = "R" in form or command == "find"
    options = form.replace("json", "").replace("R", "" if command == "find" else "R")
    words = [f"-{options}"] * bool(options) + ["--json"] * ("json" in form) + ["--color=always"] * colored
    result = call(command, place, *words)
    with ImageReader(place) as image:
        expected = [
            as_json(image, path, entry)
            if "json" in form
            else as_text(image, path if deep else entry.name, entry, options, colored)
            for path, entry in below(image, image.stat(""), "", deep)
        ]
    assert result.exit_code == 0, result.stderr
    lines = "".join(f"{line}\n" for line in expected).replace("\n", os.linesep)
    assert result.stdout_bytes == lines.encode("utf-8", "backslashreplace")


def test_what_comes_before_damage_is_listed(place: Path) -> None:
    builder = Builder()
    root = 3
    inner = builder.directory({"again": root})
    builder.save(place, builder.directory({"a": builder.add(), "b": inner}))
    result = call("ls", "-R", place)
    assert (result.exit_code, result.stdout) == (1, "a\nb/\nb/again/\n")
    assert "b\\again" in result.stderr


def test_an_entry_that_cannot_be_read_is_not_listed_in_part(place: Path) -> None:
    builder = Builder()
    builder.save(place, builder.directory({"a": builder.add(), "b": builder.add(reparse=1 << 30)}))
    for words in (["-l"], ["--json"]):
        result = call("ls", *words, place)
        assert (result.exit_code, result.stdout.count("\n")) == (1, 1)
        assert result.stdout.endswith("a\n" if words == ["-l"] else "}\n")


def test_an_image_that_is_listed_is_in_use(place: Path) -> None:
    builder = Builder()
    builder.save(place, builder.directory({"a": builder.add(reparse=builder.counted(link_data("b")))}))
    with ImageReader(place) as image:
        lines = EntryLines(image, "target", write=str, attributes=str, target=lambda _entry: str(image.close()))
        with pytest.raises(RuntimeError, match="in use"):
            lines.add_below("", recursive=True)
    with pytest.raises(ValueError, match="closed"):
        lines.add_below("", recursive=True)
