"""How a failure is reported: one line for people, one object for programs."""

from __future__ import annotations

import os
import sys

import click

from cimlayer.cli.output import LAYERS, VERBOSE, colored, escaped, json_text, of_call, painted

Failure = Exception  # OSError, ValueError or MemoryError, except for what workers report


def report(error: Failure, *, as_json: bool) -> None:
    """On standard error; with --verbose, where it was raised comes first."""
    if of_call(VERBOSE):
        import traceback  # noqa: PLC0415  which takes its time to load

        click.echo("".join(map(escaped_lines, traceback.format_exception(error))), err=True, nl=False)
    if as_json:
        click.echo(json_text({"event": "error"} | facts(error)), err=True)
        return
    name = painted("cimlayer:", "error") if colored(sys.stderr) else "cimlayer:"
    click.echo(f"{name} {escaped(explain(error))}", err=True, color=True)


def facts(error: Failure) -> dict[str, object]:
    """Its members as a JSON object: the first four always, the others where they are known."""
    path = getattr(error, "path", None)
    if path is None and isinstance(error, OSError) and error.filename is not None:
        path = os.fsdecode(error.filename) if isinstance(error.filename, bytes | str) else str(error.filename)
    always = {
        "type": type(error).__name__,
        "message": explain(error),
        "path": path,
        "offset": getattr(error, "offset", None),
    }
    known = {name: getattr(error, name, None) for name in ("operation", "source", "layer", "limit")}
    if known["layer"] is not None:
        from pathlib import Path  # noqa: PLC0415

        known["layer"] = str(Path(of_call(LAYERS), known["layer"]))
    hresult = getattr(error, "hresult", None)
    known["hresult"] = None if hresult is None else f"0x{hresult:08X}"
    return always | {name: fact for name, fact in known.items() if fact is not None}


def explain(error: Failure) -> str:
    """What is wrong, in one line that begins with what it is about."""
    if isinstance(error, MemoryError):
        return "out of memory"
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    names = [name for name in (error.filename, error.filename2) if name is not None]
    where = [os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in names]
    return ": ".join([*where, error.strerror])


def escaped_lines(text: str) -> str:
    """Text whose lines stay lines, and nothing else in it acts on a terminal."""
    return "".join(escaped(line) + "\n" for line in text.splitlines())
