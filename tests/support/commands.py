"""Calls of the command line, in this process and as a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from cimlayer.cli import commands


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


def program(*arguments: str | Path) -> list[str]:
    """The command as a program of its own."""
    return [sys.executable, "-c", "from cimlayer.cli import main; main()", *map(str, arguments)]


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """The program's end, exit code and output."""
    return subprocess.run(program(*arguments), capture_output=True, check=False, timeout=60, **options)
