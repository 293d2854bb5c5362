"""The ``cimlayer`` command. Each command is a module of its own, imported when it is called."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

__all__ = ["commands", "main"]

FAILED = 1
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + 13  # SIGPIPE, which Windows does not have

_EMPTY = re.compile("(--[a-z-]+=)?")  # an argument, or an option's value

# Name -> what it does. The modules are named like their commands, with underscores; a keyword gets one more.
_COMMANDS = {
    "import": "Make a CIM layer from an OCI layer tar.",
    "import-image": "Make CIM layers from all layers of a container image.",
    "ls": "List what an image holds.",
    "cat": "Write the content of a file to standard output.",
    "stat": "Show everything an image says of a file.",
    "verify": "Check everything an image holds.",
    "inspect": "Show what an image consists of and shares.",
    "diff": "Show what distinguishes two images.",
    "chain": "List a layer and its parents.",
    "extract": "Write files of an image to a directory.",
    "mount": "Show an image as a read-only file system.",
    "export": "Make an OCI layer tar from a CIM layer.",
    "create": "Make an image from a folder or a plain tar.",
    "destroy": "Remove a layer with its image.",
    "scratch": "Create scratch disks for all layers of a store.",
    "gc": "Find and remove files that no image refers to.",
    "registry": "Look into registry hives.",
    "bcd": "Look into boot configuration stores.",
}


class _Commands(click.Group):
    """Commands by name; what goes wrong in one becomes one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = "import_" if cmd_name == "import" else cmd_name.replace("-", "_")
        command: click.Command = importlib.import_module(f"cimlayer.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any(map(_EMPTY.fullmatch, args)) and not ctx.resilient_parsing:  # to pathlib, the current directory
            raise click.UsageError("An argument is empty.", ctx)
        with _failures_told(ctx):  # --help and --version print
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _failures_told(ctx), _warnings_told():
            super().invoke(ctx)
            sys.stdout.flush()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cimlayer", message="%(prog)s %(version)s")
def commands() -> None:
    """Make, read and check Windows container layers on any platform.

    An IMAGE is the .cim file of an image, or a layer directory whose image lies beside it. Paths inside an
    image may have slashes or backslashes and are compared without regard to case. Exit codes: 0 done,
    1 failed or found damaged, 2 called wrongly.
    """


def main() -> None:
    """Run the command that the program's arguments name, and end the process."""
    _open_closed_streams()
    try:
        commands(prog_name="cimlayer")
    except SystemExit as end:
        if isinstance(end.code, int):
            _end_process(end.code)
        raise


def _open_closed_streams() -> None:
    """Give standard streams that were closed a file on which their use fails, and standard error one that is silent.

    Left closed, they are None to Python, and their descriptors go to the next files that are opened, such as those of
    an image.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), "r")
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _end_process(code: int) -> None:
    """Without freeing every object one by one, which takes longer than many a command."""
    with suppress(OSError):  # else the interpreter says in its own way that the output was lost
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def _failures_told(ctx: click.Context) -> Iterator[None]:
    """What goes wrong becomes one line at most, and an exit code."""
    try:
        yield
    except BrokenPipeError:
        _discard_output()
        ctx.exit(PIPE_CLOSED)
    except KeyboardInterrupt:
        _discard_output()
        ctx.exit(INTERRUPTED)
    except (OSError, ValueError, MemoryError) as error:
        _report(error)
        ctx.exit(FAILED)


@contextmanager
def _warnings_told() -> Iterator[None]:
    """What the package warns of becomes one line each."""
    from cimlayer.cli.output import escaped  # noqa: PLC0415
    from cimlayer.errors import DirtyHiveWarning  # noqa: PLC0415

    def show(message: Warning | str, category: type[Warning], *args: Any, **more: Any) -> None:
        if issubclass(category, DirtyHiveWarning):
            click.echo(f"cimlayer: warning: {escaped(str(message))}", err=True)
        else:
            usual(message, category, *args, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DirtyHiveWarning)
        usual, warnings.showwarning = warnings.showwarning, show
        yield


def _report(error: OSError | ValueError | MemoryError) -> None:
    from cimlayer.cli.output import escaped  # noqa: PLC0415

    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
    click.echo(f"cimlayer: {escaped(_explain(error))}", err=True)


def _explain(error: OSError | ValueError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "out of memory"
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    names = [name for name in (error.filename, error.filename2) if name is not None]
    where = [os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in names]
    return ": ".join([*where, error.strerror])


def _discard_output() -> None:
    """Let nothing of what is still buffered fail again when the interpreter ends."""
    with suppress(OSError):  # standard output may be no file at all
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
