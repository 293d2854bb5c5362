"""``cimlayer hive``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cimfs_ext.regf import Hive, Key, Value
from cimlayer.cli import hives
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.innerpaths import HIVE_NAME
from cimlayer.cli.output import Output, bytes_text, escaped
from cimlayer.errors import FormatError
from cimlayer.formats.fileinfo import time_text
from cimlayer.formats.hivetext import (
    DeltaChange,
    Json,
    KeyChange,
    diff,
    explain,
    interpret,
    reg_file,
    reg_text,
    type_name,
    value_to_json,
)
from cimlayer.formats.sddl import sddl_from_descriptor

_MARKS = {"added": "+", "changed": "~", "deleted": "-"}
_DELTA_MARKS = {"merge": "~", "delete": "-", "replace values": "=", "replace tree": "=="}
_LAYERING = ("", "  (deletes this key)", "  (replaces its values)", "  (replaces everything below)")

Change = KeyChange | DeltaChange


@click.group("hive")
def command() -> None:
    """Show, compare and export registry hives.

    SOURCE is a hive file, a CIM or a layer directory. HIVE selects a hive of a CIM or layer: SYSTEM, SOFTWARE, SAM,
    SECURITY or DEFAULT, the name of a file in its Hives directory, or a path in the CIM; omit it for a hive file. If
    a hive file is dirty, transaction logs beside it are applied.
    """


# ---- show ----


@command.command()
@click.argument("source", metavar="SOURCE", type=HOST_PATH)
@click.argument("names", nargs=-1, metavar="[HIVE] [KEY]", type=HIVE_NAME)
@click.option("-R", "--recursive", is_flag=True, help="Include all keys below it.")
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per key, one per line.")
def show(source: str, names: tuple[str, ...], recursive: bool, as_json: bool) -> None:
    """Show the values and subkeys of a key.

    Without HIVE, list the hives of a CIM or layer; without KEY, show the root key.
    """
    output = Output()
    if not names and not hives.is_hive(source):
        _list_hives(output, source, as_json)
        return
    hive, path = _hive_and_key(source, names)
    top = hives.key_at(hive, path)
    for key in hive.walk(top.path) if recursive else [top]:
        if as_json:
            output.json(_key_to_json(key))
        else:
            _print_key(output, key, with_subkeys=not recursive)


def _hive_and_key(source: str, names: tuple[str, ...]) -> tuple[Hive, str]:
    """The hive and key path given by SOURCE [HIVE] [KEY]."""
    is_file = hives.is_hive(source)
    if len(names) > (1 if is_file else 2):
        raise click.UsageError("With a hive file, give at most a KEY." if is_file else "Give at most a HIVE and a KEY.")
    if is_file:
        return hives.open_file(source), names[0] if names else ""
    if not names:
        raise click.UsageError(f"Name a hive of {escaped(source)}.")
    return hives.open_hive(source, names[0]), names[1] if len(names) > 1 else ""


def _list_hives(output: Output, source: str, as_json: bool) -> None:
    with open_image(source) as image:
        for name, path in hives.hives_of(image).items():
            size = image.stat(path).size
            shown = path.replace("\\", "/")
            if as_json:
                output.json({"hive": name, "path": shown, "size": size})
            else:
                output.line(f"{name:<10}{size:>12}  {shown}")


def _key_to_json(key: Key) -> dict[str, Json]:
    try:
        security: str | None = sddl_from_descriptor(key.security)
    except FormatError:
        security = None
    return {
        "path": key.path,
        "class": key.class_name,
        "last_write_time": time_text(key.timestamp),
        "security": security,
        "layering": key.layering,
        "values": [value_to_json(value) for value in key.values()],
        "subkeys": [subkey.name for subkey in key.subkeys()],
    }


def _print_key(output: Output, key: Key, *, with_subkeys: bool) -> None:
    output.line(_key_text(key))
    for value in key.values():
        output.line("    " + _value_text(value))
    if with_subkeys:
        for subkey in key.subkeys():
            output.line(_key_text(subkey))


def _key_text(key: Key) -> str:
    return "\\" + escaped(key.path) + _LAYERING[key.layering & 3]


def _value_text(value: Value) -> str:
    name = escaped(value.name) or "(default)"
    return f"{name}  (deleted)" if value.tombstone else f"{name}  {_data_text(value)}"


def _data_text(value: Value) -> str:
    data = interpret(value)
    if data is None:
        shown = bytes_text(value.data)
    elif isinstance(data, int):
        shown = f"{data:#x} ({data})"
    else:
        shown = ", ".join(f'"{escaped(text)}"' for text in ([data] if isinstance(data, str) else data))
    return f"{type_name(value.type)}  {shown}".rstrip()


# ---- diff ----


@command.command("diff")
@click.argument("old", metavar="OLD", type=HOST_PATH)
@click.argument("new", metavar="[NEW]", required=False, type=HOST_PATH)
@click.option("--hive", metavar="HIVE", help="Compare only this hive of CIMs or layers.")
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per key, one per line.")
def show_differences(old: str, new: str | None, hive: str | None, as_json: bool) -> None:
    """Show which keys and values differ.

    OLD and NEW are two hive files, or two CIMs or layers whose hives are all compared. With OLD alone, a delta hive
    or a layer, show what its deltas do to the hives of the parent.

    Marks: + added, ~ changed, - deleted; in deltas also = all values replaced, == everything below replaced.
    """
    output = Output()
    for name, change in _deltas(old, hive) if new is None else _differences(old, new, hive):
        if as_json:
            output.json({"hive": name, **change.to_json()} if name else change.to_json())
        else:
            _print_change(output, name, change)


def _deltas(source: str, name: str | None) -> Iterator[tuple[str, Change]]:
    if hives.is_hive(source):
        yield from (("", change) for change in explain(hives.open_hive(source, name)))
        return
    if not Path(source).is_dir():
        raise click.UsageError("A CIM alone does not show what it changed: give NEW, or its layer directory.")
    wanted = hives.NAMES if name is None else [hives.known_name(name)]
    for hive_name, delta in hives.deltas_of(source).items():
        if hive_name in wanted:
            yield from ((hive_name, change) for change in explain(delta))


def _differences(old: str, new: str, name: str | None) -> Iterator[tuple[str, Change]]:
    if name is not None or hives.is_hive(old) or hives.is_hive(new):
        before, after = (hives.open_hive(path, None if hives.is_hive(path) else name) for path in (old, new))
        yield from (("", change) for change in diff(before, after))
        return
    with open_image(old) as old_image, open_image(new) as new_image:
        names = hives.hives_of(old_image) | hives.hives_of(new_image)
        for hive_name in names:
            before, after = hives.open_in(old_image, hive_name), hives.open_in(new_image, hive_name)
            yield from ((hive_name, change) for change in diff(before, after))


def _print_change(output: Output, hive: str, change: Change) -> None:
    place = escaped(f"{hive}\\{change.path}")
    if isinstance(change, DeltaChange):
        output.line(f"{_DELTA_MARKS[change.kind]} {place}")
        for value in change.sets:
            output.line(f"    ~ {_value_text(value)}")
        for name in change.deletes:
            output.line(f"    - {escaped(name) or '(default)'}")
        return
    properties = f"  ({', '.join(change.properties)})" if change.properties else ""
    output.line(f"{_MARKS[change.kind]} {place}{properties}")
    for value_change in change.values:
        mark = _MARKS[value_change.kind]
        if value_change.new is None:
            output.line(f"    {mark} {escaped(value_change.name) or '(default)'}")
            continue
        was = f"  (was {_data_text(value_change.old)})" if value_change.old else ""
        output.line(f"    {mark} {_value_text(value_change.new)}{was}")


# ---- export ----


@command.command()
@click.argument("source", metavar="SOURCE", type=HOST_PATH)
@click.argument("names", nargs=-1, metavar="[HIVE] [KEY]", type=HIVE_NAME)
@click.option(
    "--root",
    metavar="KEY",
    default=r"HKEY_LOCAL_MACHINE\HIVE",
    show_default=True,
    help="Registry key to use as the root of the hive.",
)
def export(source: str, names: tuple[str, ...], root: str) -> None:
    r"""Write a key and everything below it in .reg format.

    Files and pipes get what regedit reads and writes, version 5.00 in UTF-16; a terminal gets plain text. The default
    root does not exist on any Windows, so importing the file by mistake does not change the system itself; to import
    it on purpose, load a hive there first (reg load HKLM\HIVE FILE).
    """
    hive, path = _hive_and_key(source, names)
    top = hives.key_at(hive, path)
    if sys.stdout.isatty():
        Output().text(reg_text(hive, top.path, root=root).replace("\r\n", "\n").rstrip("\n"))
    else:
        sys.stdout.buffer.write(reg_file(hive, top.path, root=root))
