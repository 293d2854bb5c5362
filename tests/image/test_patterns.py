"""Patterns as gitignore(5) has them; git itself says what is right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cimlayer.image.patterns import Patterns, has_wildcards, read_patterns

PATHS = ["a", "a/b", "a/b/c.txt", "a/x.TXT", "c.txt", "d/b", "d/e/b/c.log", "b", "[x]", "d/e", "weird^name", "a-b"]
PATTERNS = [
    ["b"],
    ["*.txt"],
    ["/c.txt"],
    ["a/*"],
    ["a/**"],
    ["**/b"],
    ["**/e/**"],
    ["d/**/c.log"],
    ["?"],
    ["[a-c]"],
    ["[!a-c]"],
    ["[[]x]"],
    ["*^*"],
    ["b/"],
    ["*", "!a", "!a/b"],
    ["*.txt", "!/c.txt"],
    ["a[-]b"],
    ["a/b/c.txt"],
]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("patterns", PATTERNS, ids="|".join)
def test_patterns_mean_what_they_mean_to_git(tmp_path: Path, patterns: list[str]) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for path in PATHS:
        if any(other.startswith(path + "/") for other in PATHS):
            (tmp_path / path).mkdir(parents=True, exist_ok=True)
        else:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
    (tmp_path / ".git/info").mkdir(exist_ok=True)
    (tmp_path / ".git/info/exclude").write_text("\n".join(patterns), encoding="utf-8")
    command = ["git", "-C", tmp_path, "-c", "core.ignoreCase=true", "check-ignore", "--no-index", "--stdin"]
    said = subprocess.run(command, input="\n".join(PATHS), capture_output=True, encoding="utf-8", check=False).stdout
    chosen = Patterns(patterns)
    ours = [path for path in PATHS if chosen.cover(path, (tmp_path / path).is_dir())]
    assert ours == [line.strip('"') for line in said.splitlines()]


def test_backslashes_separate_and_case_is_ignored() -> None:
    chosen = Patterns([r"windows\*.DLL"])
    assert chosen.match(r"Windows\a.dll", False)
    assert not chosen.match(r"x\Windows\a.dll", False)
    assert not Patterns().cover("a", False)


@pytest.mark.parametrize("pattern", ["", "/", "!", "[z-a]"])
def test_malformed_patterns_are_named(pattern: str) -> None:
    with pytest.raises(ValueError, match="not a pattern"):
        Patterns([pattern])


def test_files_of_patterns_have_comments(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes("\ufeff# nothing\n\n*.log  \n!ü.log\n".encode())
    assert read_patterns(tmp_path / "list") == ["*.log", "!ü.log"]
    assert has_wildcards("a?") and not has_wildcards("a!")
