"""Manual pages are made from the help, and man understands them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from cimlayer.cli.manpages import pages
from cimlayer.cli.program import _COMMANDS, commands

PAGES = dict(pages(commands))


def test_every_command_has_a_page_with_its_options() -> None:
    assert {f"cimlayer-{name}.1" for name in _COMMANDS} | {"cimlayer.1", "cimlayer-hive-show.1"} <= set(PAGES)
    assert "\\-\\-exit\\-code" in PAGES["cimlayer-diff.1"]


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", ["cimlayer.1", "cimlayer-ls.1", "cimlayer-hive-export.1"])
def test_pages_are_clean(name: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"],
        input=PAGES[name].encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == b""
