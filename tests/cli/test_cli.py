"""The commands, as a user or a program calls them."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimlayer.cli.output import amount, counted, escaped
from cimlayer.cli.program import _COMMANDS
from cimlayer.formats.fileinfo import iso_time
from cimlayer.formats.sddl import descriptor_from_sddl
from support import ROOT
from support.commands import call, program, run, succeed

DIRECTORY, READ_ONLY, ARCHIVE, REPARSE = 0x10, 0x01, 0x20, 0x400
SDDL = "O:BAG:SYD:P(A;;FA;;;SY)"
WRITTEN = 132223104001234567
SYMLINK = 0xA000000C
LARGE = bytes(range(256)) * 8192
HOSTILE = "csi\x9b31m\u202egnp.txt"
SURROGATE = "lone\ud800.txt"


def symbolic_link(target: str) -> bytes:
    name = target.encode("utf-16-le")
    body = struct.pack("<4HI", 0, len(name), len(name) + 2, len(name), 1) + 2 * (name + b"\0\0")
    return struct.pack("<IHH", SYMLINK, len(body), 0) + body


def extended_attribute(name: bytes, value: bytes) -> bytes:
    entry = struct.pack("<IBBH", 0, 0, len(name), len(value)) + name + b"\0" + value
    return entry + bytes(-len(entry) % 4)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything."""
    directory = tmp_path_factory.mktemp("images")
    descriptor = descriptor_from_sddl(SDDL)
    with ImageWriter(directory, None, "sample.cim") as writer:
        writer.create_file("Files", attributes=DIRECTORY, security_descriptor=descriptor)
        writer.create_file(
            r"Files\hello.txt",
            attributes=ARCHIVE | READ_ONLY,
            size=5,
            last_write_time=WRITTEN,
            security_descriptor=descriptor,
        )
        writer.write(b"hello")
        writer.create_alternate_stream(r"Files\hello.txt:Zone.Identifier", 4)
        writer.write(b"zone")
        writer.create_hard_link(r"Files\again.txt", r"Files\hello.txt")
        writer.create_file(r"Files\large.bin", attributes=ARCHIVE, size=len(LARGE))
        writer.write(LARGE)
        writer.create_file(r"Files\link", attributes=ARCHIVE | REPARSE, reparse_data=symbolic_link("hello.txt"))
        writer.create_file(r"Files\tagged", extended_attributes=extended_attribute(b"TAG", b"a tag"))
        writer.create_file("Odd", attributes=DIRECTORY)
        writer.create_file(f"Odd\\{HOSTILE}")
        writer.create_file(f"Odd\\{SURROGATE}")
        writer.commit()
    return directory / "sample.cim"


# ---- the group ----


@pytest.mark.parametrize("name", _COMMANDS)
def test_help_of_every_command_begins_with_its_line_in_the_list(name: str) -> None:
    assert _COMMANDS[name] in " ".join(succeed(name, "--help").split())


def test_help_imports_no_command() -> None:
    probe = (
        "import sys\nfrom cimlayer.cli.program import commands\n"
        "try:\n    commands()\nexcept SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('cimlayer.cli.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe, "--help"], capture_output=True, check=True, timeout=60)
    assert b"verify" in done.stdout
    assert done.stderr == b"['cimlayer.cli.program']\n"


@pytest.mark.parametrize(
    "arguments",
    ["nothing", "ls", "ls --wrong x", "cat x", "stat x", "verify x y", "bcd x", "bcd show"],
)
def test_wrong_calls_exit_with_2_and_say_how_to_call(arguments: str) -> None:
    result = call(*arguments.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: cimlayer" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", ""],
        ["gc", ""],
        ["destroy", ""],
        ["import-image", "x", ""],
        ["cat", "x", ""],
        ["export", "x", "-o", ""],
        ["export", "x", "--parent="],
        ["hive", "show", ""],
    ],
)
def test_an_empty_argument_is_no_path_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    with ImageWriter(tmp_path, None, "x.cim") as writer:
        writer.commit()
    before = sorted(os.listdir(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: Arguments must not be empty." in result.stderr
    assert sorted(os.listdir(tmp_path)) == before


def test_words_are_completed_behind_an_empty_argument() -> None:
    completing = {"_CIMLAYER_COMPLETE": "bash_complete", "COMP_WORDS": "cimlayer ls '' --js", "COMP_CWORD": "3"}
    done = run(env=os.environ | completing)
    assert (done.stdout, done.stderr) == (b"plain,--json\n", b"")


@pytest.mark.parametrize(
    "words",
    ["ls", "import -", "import - x --parent", "export x -o", "extract x", "extract x y", "hive diff x", "bcd show"],
)
def test_completion_of_a_path_is_left_to_the_shell(words: str) -> None:
    completing = {"COMP_WORDS": f"cimlayer {words} lay", "COMP_CWORD": str(len(words.split()) + 1)}
    done = run(env=os.environ | completing | {"_CIMLAYER_COMPLETE": "bash_complete"})
    assert (done.stdout, done.stderr) == (b"file,lay\n", b"")


def test_want_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise MemoryError

    monkeypatch.setattr("cimlayer.cli.ls.open_image", refuse)
    result = call("ls", "image.cim")
    assert (result.exit_code, result.stderr) == (1, "cimlayer: out of memory\n")


@pytest.mark.parametrize("name", ["ls", "verify"])
def test_missing_image_fails_in_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing.cim"
    result = call(name, missing)
    assert result.exit_code == 1
    assert result.stdout == ""
    expected = f"cimlayer: {missing}: open image: No such file or directory\n"
    assert result.stderr == expected


def test_an_error_with_json_is_an_object_that_has_the_code_of_windows(tmp_path: Path) -> None:
    missing = tmp_path / "missing.cim"
    result = call("ls", missing, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr) == {
        "error": f"{missing}: open image: No such file or directory",
        "operation": "open image",
        "path": str(missing),
        "hresult": "0x80070002",
    }


def test_file_that_is_no_image_fails_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "text.cim"
    file.write_bytes(b"not an image at all" * 10)
    result = call("ls", file)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"cimlayer: {file}: ")
    assert result.stderr.count("\n") == 1


def test_a_missing_path_that_would_act_on_a_terminal_is_escaped_in_the_message(image: Path) -> None:
    result = call("cat", image, "no\x1b[31msuch\nfile")
    assert result.exit_code == 1
    assert result.stderr == "cimlayer: no\\x1b[31msuch\\nfile: not found in sample.cim\n"


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
    assert lines[:4] == ["Files/", "Odd/", "Files/again.txt", "Files/hello.txt"]
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
    assert done.stdout == HOSTILE.encode() + b"\nlone\\ud800.txt\n"


def test_an_encoding_without_the_characters_escapes_them(image: Path) -> None:
    done = run("ls", image, "Odd", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"csi\\x9b31m\\u202egnp.txt\nlone\\ud800.txt\n"


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
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"cimlayer: {message}\n")


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
    assert facts["last_write_time"] == {"iso": "2020-01-01T00:00:00.1234567Z", "filetime": WRITTEN}
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


# ---- exit codes and signals of the real program ----


def test_exit_codes_of_the_program(image: Path, tmp_path: Path) -> None:
    assert run("ls", image).returncode == 0
    assert run("ls", tmp_path / "missing").returncode == 1
    assert run("ls").returncode == 2


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("crowded")
    with ImageWriter(directory, None, "crowded.cim", sync=False) as writer:
        for number in range(20_000):
            writer.create_file(f"a file with quite a long name, number {number}")
        writer.create_file("zeros", size=1 << 30)
        writer.commit()
    return directory / "crowded.cim"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise on Windows")
@pytest.mark.parametrize("words", ["ls IMAGE", "ls -R -l IMAGE", "ls --json IMAGE", "cat IMAGE zeros"])
def test_a_reader_that_stops_ends_the_program_quietly(crowded: Path, words: str) -> None:
    command = program(*(crowded if word == "IMAGE" else word for word in words.split()))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("name", ["ls", "cat"])
def test_a_full_disk_fails_in_one_line(image: Path, name: str) -> None:
    with Path("/dev/full").open("wb") as full:
        arguments = [image] if name == "ls" else [image, "Files/large.bin"]
        done = subprocess.run(program(name, *arguments), stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == b"cimlayer: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["ls", "--help"]])
def test_help_on_a_full_disk_fails_in_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(program(*arguments), stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"cimlayer: No space left on device\n")


def run_with_closed(streams: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """The program, started by a shell that closes standard streams, such as ``<&- >&-``."""
    command = ["sh", "-c", f'"$@" {streams}', "sh", *program(*arguments)]
    return subprocess.run(command, capture_output=True, check=False, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("words", ["--help", "ls IMAGE", "ls --json IMAGE", "cat IMAGE Files/again.txt"])
def test_what_prints_to_a_closed_output_fails_in_one_line(image: Path, words: str) -> None:
    done = run_with_closed(">&-", *(image if word == "IMAGE" else word for word in words.split()))
    error = b'{"error": "Bad file descriptor"}\n' if "--json" in words else b"cimlayer: Bad file descriptor\n"
    assert (done.returncode, done.stderr) == (1, error)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_closed_streams_that_a_command_does_not_use_do_no_harm(image: Path, tmp_path: Path) -> None:
    made = tmp_path / "made.cim"
    assert run_with_closed("<&- 2>&-", "create", made, ROOT / "tests" / "golden").returncode == 0
    assert run("verify", made).returncode == 0
    done = run_with_closed("2>&-", "cat", image, "Files/hello.txt")
    assert (done.returncode, done.stdout) == (0, b"hello")
    assert run_with_closed("2>&-", "ls", tmp_path / "missing").returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="another signal on Windows")
def test_an_interrupt_exits_with_130_quietly(crowded: Path) -> None:
    with subprocess.Popen(program("cat", crowded, "zeros"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        assert process.stdout.read(10)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""


# ---- the pieces ----


@pytest.mark.parametrize(
    ("filetime", "expected"),
    [
        (0, "1601-01-01T00:00:00.0000000Z"),
        (116444736000000000, "1970-01-01T00:00:00.0000000Z"),
        (WRITTEN, "2020-01-01T00:00:00.1234567Z"),
        (2650467743999999999, "9999-12-31T23:59:59.9999999Z"),
        (2650467744000000000, None),
        (-1, None),
        ((1 << 63) - 1, None),
    ],
)
def test_filetimes_as_text(filetime: int, expected: str | None) -> None:
    assert iso_time(filetime) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü 漢", "plain ü 漢"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b\u2028\ud800\U000e0001", "\\x9b\\u2028\\ud800\\U000e0001"),
    ],
)
def test_escaped_text_is_printable(text: str, expected: str) -> None:
    assert escaped(text) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (5 << 30, "5.0 GiB"), (5 << 50, "5120.0 TiB")],
)
def test_amounts_for_people(size: int, expected: str) -> None:
    assert amount(size) == expected


@pytest.mark.parametrize(("number", "text"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries")])
def test_nouns_agree_with_their_numbers(number: int, text: str) -> None:
    assert counted(number, "entry", "entries") == text
    assert counted(number, "file") == text.replace("entry", "file").replace("entries", "files")
    assert amount(1) == "1 byte"
