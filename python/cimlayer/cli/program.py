"""The command. Each subcommand is a module of its own, imported when it is run."""

from __future__ import annotations

import functools
import importlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from cimlayer.cli import INTERRUPTED, started

__all__ = ["commands", "run"]

FAILED = 1
PIPE_CLOSED = 128 + 13  # SIGPIPE, which Windows does not have

_JSON = "cimlayer.json"  # in the context: whether the call has --json

# The modules are named after their commands, with underscores, except for these.
_MODULES = {"import": "import_", "images": "list_images"}

# Name -> summary.
_COMMANDS = {
    "import": "Import an OCI layer tar as a CIM layer.",
    "import-image": "Import all layers of a container image.",
    "import-images": "Import many container images into one store.",
    "store": "List, check and clean up a store of layers.",
    "images": "List the container images in a source.",
    "ls": "List the contents of a CIM.",
    "cat": "Write the content of files to standard output.",
    "stat": "Show all metadata of files.",
    "tree": "Show the contents of a CIM as a tree.",
    "find": "Find files in a CIM by name, size, time, attribute or owner.",
    "grep": "Search the contents of files in a CIM.",
    "du": "Show how much space directories and layers take.",
    "verify": "Verify the integrity of CIMs.",
    "inspect": "Show the region files, sizes and sharing of a CIM.",
    "diff": "Compare two CIMs.",
    "chain": "List a layer and its parents.",
    "extract": "Extract files from a CIM.",
    "mount": "Mount a CIM as a read-only file system.",
    "unmount": "Unmount a CIM.",
    "export": "Export a CIM layer as an OCI layer tar, or a CIM as a plain tar.",
    "export-image": "Export a CIM layer and all below it as a container image.",
    "create": "Create a CIM from a folder, a plain tar, a ZIP, an MSIX package or a WIM.",
    "update": "Add, delete and rename files in a CIM.",
    "destroy": "Delete a layer and its CIM.",
    "scratch": "Create scratch disks for all layers of a store.",
    "gc": "Find and delete what killed processes left behind.",
    "hive": "Show, compare and export registry hives.",
    "bcd": "Show boot configuration data (BCD) stores.",
    "completion": "Print the script that completes words in a shell.",
}
_ALIASES = {"registry": "hive"}  # earlier names: they work, but are not listed


class _Commands(click.Group):
    """Commands by name; a failure becomes one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = _ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in _COMMANDS:
            return None
        module = _MODULES.get(cmd_name, cmd_name.replace("-", "_"))
        command = _load(module)
        started()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args[0].startswith("-"):
                raise
            raise click.UsageError(f"No such command '{args[0]}'.{_suggestion(args[0])}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any(map(_is_empty, args)) and not ctx.resilient_parsing:  # to pathlib, the current directory
            raise click.UsageError("Arguments must not be empty.", ctx)
        ctx.meta[_JSON] = "--json" in args
        with _failures_reported(ctx):  # --help and --version print
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _failures_reported(ctx), _warnings_reported():
            super().invoke(ctx)
            sys.stdout.flush()


def _is_empty(word: str) -> bool:
    """Whether an argument, or an option's value, is."""
    return not word or (word.endswith("=") and re.fullmatch("--[a-z-]+=", word) is not None)


@functools.cache
def _load(module: str) -> click.Command:
    common = importlib.import_module("cimlayer.cli.common")
    command: click.Command = common.add_common_options(importlib.import_module(f"cimlayer.cli.{module}").command)
    return command


def _suggestion(word: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415

    close = get_close_matches(word, [*_COMMANDS, *_ALIASES])
    return f" Did you mean {' or '.join(close)}?" if close else ""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cimlayer", message="%(prog)s %(version)s")
def commands() -> None:
    """Make, read and check Windows container layers on any platform.

    CIM is a .cim file, or a layer directory whose CIM is in the cim-layers directory beside it. Paths inside a CIM
    may use slashes or backslashes and are case-insensitive. Exit codes: 0 success, 1 failure or damage found,
    2 usage error.
    """


def run() -> None:
    """Run the command named by the program's arguments, then end the process."""
    _open_closed_streams()
    _buffer_output()
    _write_utf8()
    _use_escape_sequences()
    if "_CIMLAYER_COMPLETE" in os.environ:
        importlib.import_module("cimlayer.cli.completing")
    try:
        commands(prog_name="cimlayer")
    except SystemExit as end:
        if isinstance(end.code, int):
            _end_process(end.code)
        raise


def _open_closed_streams() -> None:
    """Replace closed standard streams: using input or output fails, writing to standard error does nothing.

    Python sets closed streams to None, and the next files to be opened, such as those of a CIM, would get their
    descriptors.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), "r")
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _buffer_output() -> None:
    """Under PYTHONUNBUFFERED, text that a write does not take whole would be lost, as when a signal interrupts it."""
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(sys.stdout.buffer, io.RawIOBase):
        encoding, errors = sys.stdout.encoding, sys.stdout.errors
        file = io.BufferedWriter(sys.stdout.detach())
        sys.stdout = io.TextIOWrapper(file, encoding, errors, line_buffering=True)


def _write_utf8() -> None:
    """Output is UTF-8 whatever the code page of Windows is, which has no room for most names."""
    if sys.platform == "win32" and "PYTHONIOENCODING" not in os.environ:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8")


def _use_escape_sequences() -> None:
    """Have a Windows console follow ANSI sequences, for colours and progress; by itself it may show them as text."""
    if sys.platform == "win32" and (sys.stdout.isatty() or sys.stderr.isatty()):
        from colorama import just_fix_windows_console  # noqa: PLC0415

        just_fix_windows_console()


def _end_process(code: int) -> None:
    """Exit without freeing every object, which takes longer than many commands."""
    with suppress(OSError):  # otherwise the interpreter reports the lost output itself
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def _failures_reported(ctx: click.Context) -> Iterator[None]:
    """Turn a failure into at most one line and an exit code."""
    try:
        yield
    except BrokenPipeError:
        _discard_output()
        ctx.exit(PIPE_CLOSED)
    except KeyboardInterrupt:
        _discard_output()
        ctx.exit(INTERRUPTED)
    except (OSError, ValueError, MemoryError) as error:
        _report(error, as_json=ctx.meta[_JSON])
        ctx.exit(FAILED)


@contextmanager
def _warnings_reported() -> Iterator[None]:
    """Print each of the package's warnings as one line."""
    from cimlayer.cli.output import warn  # noqa: PLC0415
    from cimlayer.errors import DirtyHiveWarning  # noqa: PLC0415

    def show(message: Warning | str, category: type[Warning], *args: Any, **more: Any) -> None:
        if issubclass(category, DirtyHiveWarning):
            warn(str(message))
        else:
            usual(message, category, *args, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DirtyHiveWarning)
        usual, warnings.showwarning = warnings.showwarning, show
        yield


def _report(error: OSError | ValueError | MemoryError, *, as_json: bool) -> None:
    from cimlayer.cli.failures import report  # noqa: PLC0415

    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
    report(error, as_json=as_json)


def _discard_output() -> None:
    """Keep buffered output from failing once more when the interpreter exits."""
    with suppress(OSError):  # standard output may be no file at all
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
