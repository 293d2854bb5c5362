"""The command: ls, cat, stat, verify."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from support.clitests import (
    ARCHIVE,
    DIRECTORY,
    HOSTILE,
    LARGE,
    READ_ONLY,
    REPARSE,
    SDDL,
    SURROGATE,
    SYMLINK,
    extended_attribute,
    image,  # noqa: F401  fixtures
    symbolic_link,
)
from support.commands import call, program, run, succeed, text_of, without_codes

# ---- ls ----


def test_ls_shows_names_and_marks_directories(image: Path) -> None:
    assert succeed("ls", image) == "Files/\nOdd/\n"
    expected = "again.txt\nhello.txt\nlarge.bin\nlink\ntagged\n"
    for path in ("Files", "/files/", "FILES\\"):
        assert succeed("ls", image, path) == expected


def test_ls_of_a_file_shows_that_file(image: Path) -> None:
    assert succeed("ls", image, "Files/hello.txt") == "hello.txt\n"


def test_ls_recursive_shows_paths_from_the_root(image: Path) -> None:
    lines = succeed("ls", "-R", image).splitlines()
    assert lines[:3] == ["Files/", "Files/again.txt", "Files/hello.txt"]
    assert lines[6] == "Odd/"
    assert len(lines) == 9
    assert succeed("ls", "-R", image, "files").splitlines()[0] == "files/again.txt"


def test_ls_long_shows_attributes_size_time_and_target(image: Path) -> None:
    lines = succeed("ls", "-l", image, "Files").splitlines()
    assert lines[1] == "-ar----            5 2020-01-01 00:00:00 hello.txt"
    assert lines[3].startswith("-a---l-            0 ")
    assert lines[3].endswith(" link -> hello.txt")


def test_ls_json_is_one_object_a_line(image: Path) -> None:
    records = [json.loads(line) for line in succeed("ls", image, "Files", "--json").splitlines()]
    assert [record["path"] for record in records][:2] == ["Files/again.txt", "Files/hello.txt"]
    hello = records[1]
    assert (hello["type"], hello["size"]) == ("file", 5)
    assert hello["attributes"] == ["archive", "read-only"]
    assert hello["last_write_time"] == "2020-01-01T00:00:00.1234567Z"
    assert records[0]["file_id"] == hello["file_id"]
    assert records[3]["target"] == "hello.txt"
    assert records[3]["reparse_tag"] == SYMLINK


def test_a_pipe_gets_names_as_they_are_but_lone_surrogates_escaped(image: Path) -> None:
    done = run("ls", image, "Odd", env={**os.environ, "PYTHONUTF8": "1"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert text_of(done.stdout) == f"{HOSTILE}\nlone\\ud800.txt\n"


def test_an_encoding_without_the_characters_escapes_them(image: Path) -> None:
    done = run("ls", image, "Odd", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert text_of(done.stdout) == "csi\\x9b31m\\u202egnp.txt\nlone\\ud800.txt\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_terminal_gets_nothing_that_it_would_act_on(image: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(program("ls", "-l", image, "Odd"), stdout=theirs, check=False, timeout=60)
    finally:
        os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "csi\\x9b31m\\u202egnp.txt\r\n" in shown
    assert "lone\\ud800.txt\r\n" in shown
    assert all(c.isprintable() for c in shown.replace("\r\n", ""))


def test_names_survive_json_whatever_they_are(image: Path) -> None:
    paths = [json.loads(line)["path"] for line in succeed("ls", image, "Odd", "--json").splitlines()]
    assert paths == [f"Odd/{HOSTILE}", f"Odd/{SURROGATE}"]


# ---- cat ----


def test_cat_writes_the_bytes_of_the_file(image: Path) -> None:
    assert run("cat", image, "Files/large.bin").stdout == LARGE
    result = call("cat", image, r"files\HELLO.TXT")
    assert (result.exit_code, result.stdout_bytes) == (0, b"hello")


def test_cat_writes_an_alternate_stream(image: Path) -> None:
    assert succeed("cat", image, "Files/hello.txt", "--stream", "zone.identifier") == "zone"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Files"], "Files: is a directory"),
        (["Files/nothing"], "Files/nothing: not found in sample.cim"),
        (["Files/hello.txt", "--stream", "x"], "Files/hello.txt:x: not found in sample.cim"),
    ],
)
def test_cat_of_what_has_no_content_fails(image: Path, arguments: list[str], message: str) -> None:
    result = call("cat", image, *arguments)
    assert (result.exit_code, result.stdout, without_codes(result.stderr)) == (1, "", f"cimlayer: {message}\n")


# ---- stat ----


def test_stat_shows_what_the_image_says(image: Path) -> None:
    shown = dict(line.split("  ", 1) for line in succeed("stat", image, "Files/hello.txt").splitlines())
    fields = {name: value.strip() for name, value in shown.items()}
    assert fields["path"] == "Files/hello.txt"
    assert fields["size"] == "5 bytes"
    assert fields["attributes"] == "archive read-only"
    assert fields["last write time"] == "2020-01-01T00:00:00.1234567Z"
    assert fields["security"] == SDDL
    assert (fields["name 1"], fields["name 2"]) == ("Files/again.txt", "Files/hello.txt")
    assert fields["stream Zone.Identifier"] == "4 bytes"


def test_stat_json_has_everything_in_one_object(image: Path) -> None:
    facts = json.loads(succeed("stat", image, "Files/hello.txt", "--json"))
    assert facts["last_write_time"] == {"iso": "2020-01-01T00:00:00.1234567Z", "filetime": 132223104001234567}
    assert facts["names"] == ["Files/again.txt", "Files/hello.txt"]
    assert facts["security_descriptor"]["sddl"] == SDDL
    assert facts["streams"] == [{"name": "Zone.Identifier", "size": 4}]
    assert facts["attribute_bits"] == ARCHIVE | READ_ONLY
    assert facts["reparse_point"] is None
    assert facts["extended_attributes"] is None


def test_stat_decodes_links_and_extended_attributes(image: Path) -> None:
    assert "symbolic link to hello.txt" in succeed("stat", image, "Files/link")
    point = json.loads(succeed("stat", image, "Files/link", "--json"))["reparse_point"]
    assert (point["tag"], point["target"], point["relative"]) == (SYMLINK, "hello.txt", True)
    assert '"a tag"' in succeed("stat", image, "Files/tagged")
    attributes = json.loads(succeed("stat", image, "Files/tagged", "--json"))["extended_attributes"]
    assert attributes["attributes"] == [{"name": "TAG", "flags": 0, "base64": "YSB0YWc="}]


def test_stat_of_the_root(image: Path) -> None:
    facts = json.loads(succeed("stat", image, "/", "--json"))
    assert (facts["path"], facts["type"], facts["names"]) == ("/", "directory", ["/"])


def test_stat_says_what_is_wrong_with_a_buffer(tmp_path: Path) -> None:
    with ImageWriter(tmp_path, None, "bad.cim") as writer:
        broken = bytearray(symbolic_link("target"))
        struct.pack_into("<H", broken, 10, 5000)
        writer.create_file("link", attributes=REPARSE, reparse_data=bytes(broken))
        writer.create_file("tagged", extended_attributes=extended_attribute(b"LONGENOUGH", b"v"))
        writer.commit()
    damage(tmp_path / "bad.cim", b"\x0a\x01\0LONG", b"\xc8\x01\0LONG")
    assert "reparse data: a name reaches beyond" in succeed("stat", tmp_path / "bad.cim", "link")
    assert "extended attributes: an entry" in succeed("stat", tmp_path / "bad.cim", "tagged")
    assert succeed("ls", "-l", tmp_path / "bad.cim").count("\n") == 2


def test_stat_shows_a_descriptor_that_says_nothing(tmp_path: Path) -> None:
    with ImageWriter(tmp_path, None, "image.cim") as writer:
        writer.create_file("file", security_descriptor=bytes.fromhex("01000080") + bytes(16))
        writer.commit()
    assert "security          empty\n" in succeed("stat", tmp_path / "image.cim", "file")
    facts = json.loads(succeed("stat", tmp_path / "image.cim", "file", "--json"))
    assert facts["security_descriptor"]["sddl"] == ""


# ---- verify ----


def damage(image: Path, found: bytes, replaced: bytes) -> None:
    """Replace bytes of the one region file that has them."""
    regions = [path for path in image.parent.glob("region_*") if found in path.read_bytes()]
    assert len(regions) == 1
    content = regions[0].read_bytes()
    assert content.count(found) == 1
    regions[0].write_bytes(content.replace(found, replaced))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    with ImageWriter(tmp_path, None, "damaged.cim") as writer:
        writer.create_file("Files", attributes=DIRECTORY)
        for name in ("first.txt", "second.txt"):
            writer.create_file(f"Files\\{name}", size=11)
            writer.write(b"shared text")
        writer.create_hard_link(r"Files\third.txt", r"Files\second.txt")
        writer.create_file("whole.txt", size=5)
        writer.write(b"whole")
        writer.create_alternate_stream("whole.txt:stream", 11)
        writer.write(b"stream text")
        writer.commit()
    return tmp_path / "damaged.cim"


def test_verify_counts_what_a_good_image_holds(image: Path) -> None:
    assert succeed("verify", image).splitlines()[-1] == "no problems"
    report = json.loads(succeed("verify", image, "--json"))
    assert report["ok"]
    assert (report["files"], report["directories"], report["streams"]) == (6, 3, 1)
    assert report["problems"] == []
    assert report["bytes"] > len(LARGE)


def test_verify_names_every_file_that_shares_damaged_content(damaged: Path) -> None:
    damage(damaged, b"shared text", b"shared tixt")
    result = call("verify", damaged)
    assert result.exit_code == 1
    for name in ("first", "second", "third"):
        assert f"    affects Files/{name}.txt\n" in result.stdout
    assert "whole.txt" not in result.stdout
    assert result.stdout.splitlines()[-1] == "1 problem"


def test_verify_json_names_the_file_the_offset_and_the_paths(damaged: Path) -> None:
    damage(damaged, b"stream text", b"stream tuxt")
    result = call("verify", damaged, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["ok"]
    (problem,) = report["problems"]
    assert problem["file"].startswith("region_")
    content = (damaged.parent / problem["file"]).read_bytes()
    assert content[problem["offset"] :].startswith(b"stream tuxt")
    assert problem["paths"] == ["whole.txt"]


def test_verify_names_a_directory_whose_table_is_damaged(damaged: Path) -> None:
    damage(damaged, "second.txt".encode("utf-16-le"), "zecond.txt".encode("utf-16-le"))
    result = call("verify", damaged, "--json")
    assert result.exit_code == 1
    paths = {path for problem in json.loads(result.stdout)["problems"] for path in problem["paths"]}
    assert paths == {"Files"}


def test_verify_ends_although_directories_lie_in_each_other(damaged: Path) -> None:
    """The root's entry for a file is made to lead to the directory beside it."""
    region = next(damaged.parent.glob("region_*_0"))
    content = bytearray(region.read_bytes())
    values = content.index(b"\5\0" + "Files".encode("utf-16-le")) - 16  # behind two IDs and two offsets
    content[values + 4 : values + 8] = content[values : values + 4]
    region.write_bytes(content)
    done = run("verify", damaged)
    assert done.returncode == 1
    assert b"lies in itself" in done.stdout
    done = run("stat", damaged, "Files/second.txt")
    assert done.returncode == 0
    assert b"a directory in this CIM is damaged" in done.stdout
