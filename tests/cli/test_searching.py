"""The command: tree, find, grep, du, and several operands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimlayer.formats.fileinfo import filetime_from_text
from cimlayer.formats.sddl import descriptor_from_sddl
from support.clitests import (
    image,  # noqa: F401  fixtures
    symbolic_link,
)
from support.commands import call, run, succeed, text_of
from support.images import add, make_image

DIRECTORY, ARCHIVE, HIDDEN, REPARSE = 0x10, 0x20, 0x02, 0x400
TEXT = "one\r\ntwo words\r\nthree\r\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    with ImageWriter(root, None, "tree.cim", sync=False) as writer:
        add(writer, "docs", attributes=DIRECTORY)
        add(writer, r"docs\a.txt", TEXT.encode(), attributes=ARCHIVE, last_write_time=filetime_from_text("2020-01-01"))
        add(writer, r"docs\wide.TXT", b"\xff\xfe" + TEXT.encode("utf-16-le"), attributes=HIDDEN)
        add(writer, r"docs\sub", attributes=DIRECTORY)
        add(
            writer,
            r"docs\sub\data.bin",
            b"x\0two words\n" + bytes(5000),
            last_write_time=filetime_from_text("2024-06-01"),
        )
        writer.create_hard_link(r"docs\sub\same.txt", r"docs\a.txt")
        add(writer, "link", attributes=REPARSE, reparse_data=symbolic_link("docs"))
        add(writer, "owned", b"1", security_descriptor=descriptor_from_sddl("O:S-1-5-32-544"))
        writer.commit()
    return root / "tree.cim"


# ---- tree ----


def test_tree_draws_what_is_below(tree: Path) -> None:
    assert succeed("tree", tree) == (
        "/\n├── docs/\n│   ├── a.txt\n│   ├── sub/\n│   │   ├── data.bin\n│   │   └── same.txt\n│   └── wide.TXT\n"
        "├── link -> docs\n└── owned\n\n2 directories, 6 files\n"
    )
    assert succeed("tree", tree, "docs/sub", "-s", "--bytes").splitlines()[1] == "├── [      5012]  data.bin"
    assert succeed("tree", tree, "-L", "1", "-d") == "/\n└── docs/\n\n1 directory\n"


def test_tree_draws_in_ascii_where_the_encoding_has_nothing_else(tree: Path) -> None:
    done = run("tree", tree, "docs/sub", env={"PYTHONIOENCODING": "ascii"})
    assert text_of(done.stdout) == "docs/sub/\n|-- data.bin\n`-- same.txt\n\n0 directories, 2 files\n"


# ---- find ----


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ("--name *.txt", ["docs/a.txt", "docs/sub/same.txt", "docs/wide.TXT"]),
        ("docs/sub --name *.txt", ["docs/sub/same.txt"]),
        ("--name docs/**/*.bin", ["docs/sub/data.bin"]),
        ("--name docs/*.bin", []),
        ("--type directory", ["docs/", "docs/sub/"]),
        ("--type link", ["link"]),
        ("--size +4K", ["docs/sub/data.bin"]),
        ("--size -2 --type file", ["owned"]),
        ("--size 5012", ["docs/sub/data.bin"]),
        ("--newer 2024-05-31T23:59:59.9999999Z", ["docs/sub/data.bin"]),
        ("--newer 2019-12-31 --older 2020-01-02", ["docs/a.txt", "docs/sub/same.txt"]),
        ("--attribute hidden", ["docs/wide.TXT"]),
        ("--attribute archive --attribute hidden", []),
        ("--owner ba", ["owned"]),
        ("--owner S-1-5-32-544", ["owned"]),
        ("--owner SY", []),
    ],
)
def test_find_lists_what_meets_all_conditions(tree: Path, conditions: str, found: list[str]) -> None:
    assert succeed("find", tree, *conditions.split()).splitlines() == found


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ("--size big", "not a size such as"),
        ("--newer yesterday", "not a time such as"),
        ("--older 2024-13-01", "month must be"),
        ("--newer 1600-01-01", "before 1601"),
        ("--owner nobody", "not a SID"),
        ("--attribute red", "is not one of"),
    ],
)
def test_find_says_which_condition_is_wrong(tree: Path, conditions: str, message: str) -> None:
    result = call("find", tree, *conditions.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


# ---- grep ----


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            "two TREE",
            [
                "docs/a.txt:two words",
                "docs/sub/data.bin: binary file matches",
                "docs/sub/same.txt:two words",
                "docs/wide.TXT:two words",
            ],
        ),
        (
            "-n ^t TREE docs/*.txt",
            ["docs/a.txt:2:two words", "docs/a.txt:3:three", "docs/wide.TXT:2:two words", "docs/wide.TXT:3:three"],
        ),
        ("-n e$ TREE docs/a.txt", ["docs/a.txt:1:one", "docs/a.txt:3:three"]),
        (r"one\s TREE docs/a.txt", []),
        ("-i TWO TREE --include a.*", ["docs/a.txt:two words"]),
        ("-F t.o TREE", []),
        ("-l word TREE docs/sub", ["docs/sub/data.bin", "docs/sub/same.txt"]),
        ("-a word TREE docs/sub/data.bin", ["docs/sub/data.bin:x\0two words"]),
    ],
)
def test_grep_shows_the_lines_that_match(tree: Path, arguments: str, lines: list[str]) -> None:
    result = call("grep", *(str(tree) if word == "TREE" else word for word in arguments.split()))
    assert (result.exit_code, result.stderr) == (0 if lines else 1, "")
    assert result.stdout.splitlines() == lines


def test_grep_finds_lines_across_the_pieces_that_are_read(tmp_path: Path) -> None:
    lines = [b"%07d %s" % (number, b"x" * (number % 300)) for number in range(20_000)]
    path = make_image(tmp_path, "long.cim", {"long.txt": b"\n".join(lines), "one": b"y" * (3 << 20) + b"needle"})
    found = [json.loads(line) for line in succeed("grep", r"^00\d+99 x*$", path, "--json").splitlines()]
    wanted = [number for number, line in enumerate(lines, 1) if line[:2] == b"00" and line[5:8] == b"99 "]
    assert [record["line"] for record in found] == wanted
    assert len(succeed("grep", "needle$", path, "one")) > 3 << 20


def test_grep_refuses_what_is_no_expression(tree: Path) -> None:
    result = call("grep", "(", tree)
    assert result.exit_code == 2
    assert "Invalid value for PATTERN: missing )" in result.stderr


# ---- du ----


def test_du_counts_each_file_once_and_says_what_the_parents_have(tmp_path: Path) -> None:
    files = {"a": None, r"a\one": b"1" * 100, r"a\b": None, r"a\b\two": b"2" * 50, "c": None, r"c\same": b"1" * 100}
    make_image(tmp_path, "base.cim", files)
    with ImageWriter(tmp_path, "base.cim", "top.cim", sync=False) as writer:
        writer.create_hard_link(r"c\link", r"a\b\two")
        add(writer, r"a\new", b"3" * 30)
        add(writer, r"c\new", b"3" * 30)
        add(writer, r"c\only", b"4" * 7)
        writer.commit()
    rows = [json.loads(line) for line in succeed("du", tmp_path / "top.cim", "--json").splitlines()]
    sizes = {row["path"]: [value for name, value in row.items() if name != "path"] for row in rows}
    assert list(sizes) == ["a/b", "a", "c", "/"]
    assert sizes == {
        "a/b": [50, 50, 50, 0],
        "a": [180, 180, 150, 0],  # what a\new has is needed for c\new
        "c": [187, 187, 150, 7],
        "/": [317, 187, 150, 37],
    }
    assert succeed("du", tmp_path / "top.cim", "/a", "-d", "0", "--bytes") == "         180  a\n"
    base, top = (
        json.loads(line) for line in reversed(succeed("du", tmp_path / "top.cim", "--layers", "--json").splitlines())
    )
    assert (top["stored_bytes"], base["stored_bytes"], base["freed_bytes"]) == (37, 150, 0)
    assert top["freed_bytes"] == top["disk_bytes"] > 37


def test_du_of_a_file_fails(tree: Path) -> None:
    result = call("du", tree, "owned")
    assert (result.exit_code, result.stderr) == (1, "cimlayer: owned: Not a directory\n")
    assert call("du", tree, "--layers", "docs").exit_code == 2


# ---- several operands ----


def test_several_operands_of_ls(tree: Path) -> None:
    assert succeed("ls", tree, "docs", "docs/sub/", "owned") == (
        "owned\n\ndocs:\na.txt\nsub/\nwide.TXT\n\ndocs/sub:\ndata.bin\nsame.txt\n"
    )
    assert succeed("ls", tree, "-d", "docs/*") == "docs/a.txt\ndocs/sub/\ndocs/wide.TXT\n"
    assert succeed("ls", tree, "-l", "-h", "docs/sub/data.bin").split()[1:3] == ["4.9", "KiB"]


def test_several_operands_of_cat_and_stat(tree: Path) -> None:
    assert run("cat", tree, "owned", "docs/*a.txt", "owned").stdout == b"1" + TEXT.encode() + b"1"
    records = [json.loads(line) for line in succeed("stat", tree, "docs/**", "--json").splitlines()]
    assert [record["path"] for record in records] == [
        "docs/a.txt", "docs/sub", "docs/sub/data.bin", "docs/sub/same.txt", "docs/wide.TXT",
    ]  # fmt: skip
    assert records[0]["names"] == records[3]["names"] == ["docs/a.txt", "docs/sub/same.txt"]
    assert records[1]["names"] == ["docs/sub"]


@pytest.mark.parametrize("name", ["ls", "cat", "stat", "find", "tree", "du"])
def test_nothing_is_printed_if_one_operand_does_not_exist(tree: Path, name: str) -> None:
    result = call(name, tree, "docs", "*.none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing in tree.cim matches" in result.stderr or name == "cat"


def test_diff_says_by_its_exit_code_that_something_differs(tree: Path, image: Path) -> None:
    assert call("diff", tree, image).exit_code == 0
    assert call("diff", tree, image, "--exit-code").exit_code == 1
    assert call("diff", tree, tree, "--exit-code").exit_code == 0
