"""Progress on a terminal: one line, never wider than the terminal, and nothing anywhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cimlayer.cli import bar as bars
from cimlayer.cli import progress
from cimlayer.cli.bar import Bar
from cimlayer.cli.progress import progress_of
from support import ROOT
from support.clitests import (
    image,  # noqa: F401  fixtures
)
from support.commands import run, succeed
from support.platforms import not_under_wine
from support.terminals import open_terminal, read_all, resize, shown_on_a_terminal

MIB = 1 << 20


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A terminal as standard error, on which bars are drawn at once."""
    ours, theirs = open_terminal(100)
    monkeypatch.setattr(bars, "_SECONDS_BEFORE_FIRST", 0.0)
    monkeypatch.setattr(bars, "_SECONDS_BETWEEN_DRAWINGS", 0.0)
    with os.fdopen(theirs, "w", closefd=False) as stream:
        for module in (progress, bars):
            monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=stream))
        yield ours, theirs


def drawings(ours: int, theirs: int) -> list[str]:
    os.close(theirs)
    return [text for text in read_all(ours).split("\r\x1b[K") if text.strip("\r")]


def test_a_bar_shrinks_with_its_terminal(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    bar = Bar("a label that is quite long", 100 * MIB)
    bar.show(10 * MIB)
    resize(theirs, 30)
    bar.show(20 * MIB)
    resize(theirs, 0)  # a terminal that does not say
    bar.show(100 * MIB)
    bar.close()
    _, wide, narrow, unknown = drawings(ours, theirs)
    assert re.match(r"a label that is quite long:  10%\|.+\| 10\.0 MiB of 100\.0 MiB, ", wide)
    assert 80 < len(wide) <= 99
    assert "a label that is quite long:  20%".startswith(narrow)
    assert 20 < len(narrow) <= 29  # one column stays free
    assert re.match(r"a label that is quite long: 100%\|.+\| 100\.0 MiB of 100\.0 MiB, ", unknown)
    assert len(unknown.rstrip("\r")) <= 79


def test_a_bar_shows_rate_and_time_left(terminal: tuple[int, int]) -> None:
    now = 0.0
    bar = Bar("x\x1b", 130 * MIB)
    bar._time = lambda: now
    bar.start_t = bar.last_print_t = now
    now = 2.0
    bar.show(20 * MIB)
    bar.note("committing\x1b")
    bar.close()
    other = Bar("y")
    other.show(MIB)
    other.close()
    shown = [text for text in drawings(*terminal) if "0 bytes" not in text]
    assert re.fullmatch(r"x\\x1b:  15%\|.+\| 20\.0 MiB of 130\.0 MiB, 10\.0 MiB/s, 00:11 left", shown[0])
    assert shown[1].startswith("x\\x1b:  15%|")
    assert shown[1].endswith(", committing\\x1b")
    assert re.match(r"y: 1\.0 MiB, .*iB/s", shown[2])


def test_more_bytes_than_expected_are_all_of_them(terminal: tuple[int, int]) -> None:
    bar = Bar("x", MIB)
    bar.show(2 * MIB)
    bar.close()
    assert re.match(r"x: 100%\|.+\| 2\.0 MiB of 2\.0 MiB, ", drawings(*terminal)[1])


def test_what_takes_no_time_shows_no_bar(terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "_SECONDS_BEFORE_FIRST", 1000.0)
    with progress_of("working", 10) as bar:
        assert bar is not None
        bar.show(5)
        bar.note("committing")
    assert drawings(*terminal) == []


COMMANDS = (
    "verify IMAGE",
    "diff IMAGE COPY",
    "import TAR LAYER",
    pytest.param("extract IMAGE DEST", marks=not_under_wine("half a surrogate pair in a name")),
    "export IMAGE -o DEST",
    "export-image MADE oci:DEST --os-version 10.0.1.2",
)
ING = re.compile("verifying|comparing|extracting|exporting|layer ")
SLOW = "from cimlayer.cli import bar; bar._SECONDS_BEFORE_FIRST = bar._SECONDS_BETWEEN_DRAWINGS = 0"


@pytest.mark.parametrize("words", COMMANDS)
def test_on_a_terminal_the_bar_goes_before_the_result_comes(image: Path, tmp_path: Path, words: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW, encoding="utf-8")
    shown = shown_on_a_terminal(
        *_words(words, image, tmp_path), environment={"PYTHONPATH": str(tmp_path), "TERM": "xterm"}
    )
    if "\x1b[K" in shown:
        *drawn, result = shown.split("\r\x1b[K")
        assert result.strip("\r").endswith("\r\n") or words.startswith(("diff", "export "))
        assert not any(ING.match(text) for text in (result, *(text for text in drawn if "\n" in text)))
    if words.startswith("export"):
        assert "\r\x1b[Kexporting: " in shown


def _words(words: str, image: Path, directory: Path) -> list[str | Path]:
    tar = ROOT / "examples" / "sample-layer.tar"
    if "MADE" in words:
        succeed("import", tar, directory / "made" / "1", "--no-sync")
    places: dict[str, str | Path] = {
        "MADE": directory / "made" / "1",
        "oci:DEST": f"oci:{directory}/dest",
        "IMAGE": image,
        "COPY": image,
        "TAR": tar,
        "LAYER": directory / "layer",
        "DEST": directory / "dest",
    }
    return [places.get(word, word) for word in words.split()]


@pytest.mark.parametrize("words", COMMANDS)
def test_no_terminal_no_progress(image: Path, tmp_path: Path, words: str) -> None:
    assert run(*_words(words, image, tmp_path)).stderr == b""


def test_without_a_terminal_tqdm_is_not_imported(image: Path) -> None:
    probe = (
        "import sys\nfrom cimlayer.cli.program import commands\n"
        "try:\n    commands()\nexcept SystemExit: pass\n"
        "print('tqdm' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe, "verify", image], capture_output=True, check=True, timeout=60)
    assert done.stderr.strip() == b"False"


def test_quiet_shows_no_bar_on_a_terminal(image: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW, encoding="utf-8")
    shown = shown_on_a_terminal("verify", image, "-q", environment={"PYTHONPATH": str(tmp_path)})
    assert "verifying" not in shown
    assert succeed("verify", image).endswith("no problems\n")
