"""Programs on a pseudo-terminal."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.commands import program
from support.platforms import WINDOWS


def open_terminal(columns: int = 80) -> tuple[int, int]:
    """Our end and the program's end of a terminal of that width; skips the test where there is none."""
    if WINDOWS:
        pytest.skip("no pseudo-terminals there")
    import pty

    ours, theirs = pty.openpty()
    resize(theirs, columns)
    return ours, theirs


def resize(terminal: int, columns: int) -> None:
    """Give a terminal another width; its programs get SIGWINCH."""
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def shown_on_a_terminal(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """What the command writes to a terminal that is its output and its errors."""
    ours, theirs = open_terminal()
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        program(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=inherited | (environment or {})
    ) as process:
        os.close(theirs)
        shown = read_all(ours)
        process.wait(60)
    return shown


def read_all(terminal: int) -> str:
    """What was written until the other end was closed; closes this one."""
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # so Linux says that the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    return shown.decode()
