"""Completion in real shells: names in a CIM, which are untrusted, are completed and never run."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import call, program, run
from support.images import make_image
from support.terminals import open_terminal

FILES = {
    "Some Files": None,
    r"Some Files\a $(touch ran) `touch ran`; touch ran": b"CONTENT OF A\n",
    r"Some Files\b,c.txt": b"CONTENT OF B\n",
    "sole.txt": b"",
}

Complete = Callable[[str], list[str]]


def needs(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an image and the command, which shells find."""
    make_image(tmp_path, "one.cim", FILES)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "cimlayer"
    command.write_text(f"#!{sys.executable}\n{program()[2].replace('; ', chr(10))}\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Shell:
    """An interactive shell on a terminal."""

    def __init__(self, *command: str) -> None:
        self._terminal, theirs = open_terminal(200)
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=os.environ | {"PS1": ">"}
        )
        os.close(theirs)
        self._shown = ""

    def type(self, keys: str, until: str) -> None:
        """Type, and wait for what is shown then."""
        self._shown = ""
        os.write(self._terminal, keys.encode())
        while until not in self._shown:
            ready, _, _ = select.select([self._terminal], [], [], 30)
            assert ready, self._shown
            self._shown += os.read(self._terminal, 65536).decode()

    def close(self) -> None:
        os.close(self._terminal)
        self._process.kill()
        self._process.wait(60)


SETUP = {
    "bash": (
        ("--norc", "--noprofile", "-i"),
        'bind "set enable-bracketed-paste off"; eval "$(cimlayer completion bash)"',
    ),
    "zsh": (("-f", "-i"), 'autoload -Uz compinit; compinit -u; eval "$(cimlayer completion zsh)"'),
}


@pytest.mark.parametrize("name", SETUP)
def test_shells_complete_paths_in_a_cim_and_quote_them(place: Path, name: str) -> None:
    options, setup = SETUP[name]
    shell = Shell(needs(name), *options)
    try:
        shell.type(f"{setup}; echo set'' up\n", "set up")
        shell.type("cimlayer cat one.cim some\t", "Files/")
        shell.type("a\t", "ran")
        shell.type("\n", "CONTENT OF A")
        shell.type("cimlayer cat one.cim Some\\ Files/b\t", "c.txt")
        shell.type("\n", "CONTENT OF B")
        shell.type("cimlayer cat one.cim 'Some Files/b\t", "c.txt")
        shell.type("\n", "CONTENT OF B")
    finally:
        shell.close()
    assert not (place / "ran").exists()


def test_fish_completes_paths_in_a_cim(place: Path) -> None:
    fish = needs("fish")
    script = 'cimlayer completion fish | source; complete -C "cimlayer cat one.cim Some\\ Files/"'
    done = subprocess.run([fish, "--no-config", "-c", script], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().splitlines() == [path.replace("\\", "/") for path in FILES if "\\" in path]


@pytest.fixture
def completed(place: Path) -> Complete:
    def words(line: str) -> list[str]:
        typed = {"COMP_WORDS": f"cimlayer {line}", "COMP_CWORD": str(len(line.split(" ")))}
        done = run(env=os.environ | typed | {"_CIMLAYER_COMPLETE": "bash_complete"})
        assert done.stderr == b""
        return [entry.partition(",")[2] for entry in done.stdout.decode().splitlines() if entry]

    return words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ls one.cim ", ["sole.txt", "Some Files/"]),
        ("ls one.cim SOL", ["sole.txt"]),
        ("ls missing.cim ", []),
        ("ls one.cim nowhere/", []),
        ("grep x one.cim sol", ["sole.txt"]),
        ("import --limit f", ["files="]),
        ("hive show one.cim s", []),
        ("completion z", ["zsh"]),
        ("comp", ["completion"]),
        ("ls --color ", ["auto", "always", "never"]),
    ],
)
def test_words_that_are_completed(completed: Complete, line: str, words: list[str]) -> None:
    assert completed(line) == words


def test_hives_of_a_layer_are_completed(completed: Complete, place: Path) -> None:
    make_image(place, "hives.cim", {"Hives": None, r"Hives\SYSTEM_BASE": b"", r"Hives\SAM_BASE": b""})
    assert completed("hive show hives.cim s") == ["SYSTEM", "SAM"]


def test_completion_refuses_another_shell() -> None:
    assert "'tcsh' is not one of" in run("completion", "tcsh").stderr.decode()
    assert call("completion", "bash").stdout.endswith("complete -o nosort -F _cimlayer_completion cimlayer\n")
