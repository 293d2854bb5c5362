"""The picture of a session in README.md has the text that its commands print."""

from __future__ import annotations

import html
import re
import runpy
import sys
from itertools import groupby

import pytest

from support import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the sessions are those of a POSIX shell")

TEXT = re.compile(r'<text class="session-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>')
COLOR = re.compile(r"\x1b\[[\d;]*m")
CHARACTER = 12.2  # the width of one, in the picture


def lines_of(picture: str) -> list[str]:
    """What stands in a picture, line by line."""
    pieces = [
        (float(y), round(float(x) / CHARACTER), html.unescape(text).replace("\xa0", " "))
        for x, y, text in TEXT.findall(picture)
    ]
    lines = []
    for _, row in groupby(sorted(pieces), key=lambda piece: piece[0]):
        line = ""
        for _, column, text in row:
            line = line.ljust(column) + text
        lines.append(line.rstrip())
    return lines


def test_the_picture_shows_what_the_commands_print() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "session.py"))
    shown = lines_of(made["PICTURE"].read_text("utf-8"))
    assert len(shown) > 30
    assert shown == COLOR.sub("", made["session"]()).splitlines()


def test_the_readme_has_its_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    made = runpy.run_path(str(ROOT / "docs" / "session.py"))
    assert "docs/images/session.svg" in readme
    assert all(f".venv/bin/{typed}\n" in readme for typed in made["_SESSION"])
