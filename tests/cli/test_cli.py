"""The command: the group, exit codes and signals of the real program, the pieces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cimfs_ext.filetimes import iso_time
from cimfs_ext.image import ImageWriter
from cimlayer.cli.output import amount, counted, escaped
from cimlayer.cli.program import _COMMANDS
from support import ROOT
from support.clitests import (
    WRITTEN,
    image,  # noqa: F401  fixtures
)
from support.commands import call, program, run, succeed, without_codes

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
    assert done.stderr.rstrip() == b"['cimlayer.cli.program']"


@pytest.mark.parametrize(
    "arguments",
    ["nothing", "ls", "ls --wrong x", "cat x", "stat x", "verify", "bcd x", "bcd show"],
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
    assert without_codes(result.stderr) == expected


def test_an_error_with_json_is_an_object_that_has_the_code_of_windows(tmp_path: Path) -> None:
    missing = tmp_path / "missing.cim"
    result = call("ls", missing, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(without_codes(result.stderr)) == {
        "event": "error",
        "type": "ImageNotFoundError",
        "message": f"{missing}: open image: No such file or directory",
        "path": str(missing),
        "offset": None,
        "operation": "open image",
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
    assert without_codes(result.stderr) == "cimlayer: no\\x1b[31msuch\\nfile: nothing in sample.cim matches\n"


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


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes there")
@pytest.mark.parametrize("words", ["ls -l IMAGE", "export IMAGE"])
def test_a_program_that_is_stopped_and_goes_on_loses_no_output(crowded: Path, words: str) -> None:
    command = program(*(crowded if word == "IMAGE" else word for word in words.split()))
    expected = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    found = b""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, bufsize=0) as process:
        assert process.stdout
        while piece := process.stdout.read(1 << 16):
            found += piece
            process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGCONT)
    assert process.returncode == 0
    assert len(found) == len(expected) and found == expected


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
    assert done.returncode == 1
    error = json.loads(done.stderr)["message"] if "--json" in words else done.stderr.decode()
    assert error.removeprefix("cimlayer: ").rstrip() == "Bad file descriptor"


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
