"""Calls of the command line, in this process and as a program."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from click.testing import CliRunner, Result

from cimlayer.cli.program import commands


def call(*arguments: str | Path, **options: Any) -> Result:
    """A command in this process, whatever becomes of it."""
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(commands, words, prog_name="cimlayer", **options)


def succeed(*arguments: str | Path, **options: Any) -> str:
    """The output of a command that must succeed without a word on standard error."""
    result = call(*arguments, **options)
    assert result.exit_code == 0, result.stderr or result.exception
    assert result.stderr == ""
    return result.stdout


def without_codes(text: str) -> str:
    """Errors without the codes that Windows adds to them."""
    return re.sub(r" \(0x[0-9A-F]{8}\)", "", text)


def program(*arguments: str | Path) -> list[str]:
    """The command as a program of its own."""
    return [sys.executable, "-c", "from cimlayer.cli import main; main()", *map(str, arguments)]


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """The program's end, exit code and output."""
    return subprocess.run(program(*arguments), capture_output=True, check=False, timeout=60, **options)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    """Look again and again until it holds, or the process has ended; a minute without either is a failure."""
    deadline = time.monotonic() + 60
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)


def is_drained(pipe: IO[bytes]) -> bool:
    """Whether all that was written to a pipe has been read: its reader waits for more, or is about to."""
    import fcntl
    import termios

    return fcntl.ioctl(pipe.fileno(), termios.FIONREAD, b"\0" * 4) == b"\0" * 4


@contextmanager
def cpu_time_below(seconds: float) -> Iterator[None]:
    """Fail if more processor time was used: for what takes minutes if it is quadratic. The machine may be busy."""
    begun = time.process_time()
    yield
    assert time.process_time() - begun < seconds
