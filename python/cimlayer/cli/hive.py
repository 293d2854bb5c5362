"""``cimlayer hive``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cimfs_ext.filetimes import time_text
from cimfs_ext.hivevalues import Value, interpret, type_name
from cimfs_ext.regf import Hive, Key
from cimlayer.cli import hives
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.innerpaths import HIVE_NAME
from cimlayer.cli.output import Output, bytes_text, escaped
from cimlayer.errors import FormatError
from cimlayer.formats.hivetext import (
    DeltaChange,
    Json,
    KeyChange,
    diff,
    explain,
    reg_file,
    reg_text,
    value_to_json,
)
from cimlayer.formats.sddl import sddl_from_descriptor
from cimlayer.layer.hivefiles import hives_of, open_hive, split_registry_path

_MARKS = {"added": "+", "changed": "~", "deleted": "-"}
_DELTA_MARKS = {"merge": "~", "delete": "-", "replace values": "=", "replace tree": "=="}
_LAYERING = ("", "  (deletes this key)", "  (replaces its values)", "  (replaces everything below)")

_DEFAULT = "(default)"

Change = KeyChange | DeltaChange


@click.group("hive")
def command() -> None:
    r"""Show, compare and export registry hives.

    SOURCE is a hive file, a CIM or a layer directory; - reads a hive from standard input. HIVE selects a hive of a CIM
    or layer: SYSTEM, SOFTWARE, SAM, SECURITY or DEFAULT, the name of a file in its Hives directory, or a path in the
    CIM; omit it for a hive file. KEY is a path below the root of the hive, with backslashes; for a CIM or layer,
    HKLM\SOFTWARE\KEY selects both. If a hive file is dirty, transaction logs beside it are applied.
    """


# ---- show ----


@command.command()
@click.argument("source", metavar="SOURCE", type=HOST_PATH)
@click.argument("names", nargs=-1, metavar="[HIVE] [KEY] [VALUE]", type=HIVE_NAME)
@click.option("-R", "--recursive", is_flag=True, help="Include all keys below it.")
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per key, one per line.")
def show(source: str, names: tuple[str, ...], recursive: bool, as_json: bool) -> None:
    """Show the values and subkeys of a key, or one value.

    Without HIVE, list the hives of a CIM or layer; without KEY, show the root key. Of VALUE ("(default)" is the
    default value) only the data is printed: a number in decimal, strings one per line, bytes in hexadecimal.
    """
    output = Output()
    if not names and not hives.is_hive(source):
        _list_hives(output, source, as_json)
        return
    hive, (path, *value) = _located(source, names, "KEY", "VALUE")
    top = hives.key_at(hive, path)
    if value:
        if recursive:
            raise click.UsageError("Of one VALUE nothing is below: omit -R.")
        _print_value(output, _value_of(top, value[0]), as_json)
        return
    for key in hive.walk(top.path) if recursive else [top]:
        if as_json:
            output.json(_key_to_json(key))
        else:
            _print_key(output, key, with_subkeys=not recursive)


def _located(source: str, names: tuple[str, ...], *rest: str) -> tuple[Hive, list[str]]:
    """The hive given by SOURCE [HIVE], and the key path and what else follows; ``rest`` is what may."""
    is_file = hives.is_hive(source)
    in_registry = None if is_file or not names else split_registry_path(names[0])
    if in_registry is not None:
        names = (*in_registry, *names[1:])
    allowed = rest if is_file else ("HIVE", *rest)
    if len(names) > len(allowed):
        most = " and a ".join(allowed)
        raise click.UsageError(f"With a hive file, give at most a {most}." if is_file else f"Give at most a {most}.")
    if not is_file and not names:
        raise click.UsageError(f"Name a hive of {escaped(source)}.")
    hive = hives.open_file(source) if is_file else open_hive(source, names[0])
    return hive, list(names if is_file else names[1:]) or [""]


def _list_hives(output: Output, source: str, as_json: bool) -> None:
    with open_image(source) as image:
        for name, path in hives_of(image).items():
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


def _value_of(key: Key, name: str) -> Value:
    """The value of that name; the default value, which has none, by the name that is shown for it."""
    if name == _DEFAULT and not any(value.name == name for value in key.values()):
        return key.value("")
    return key.value(name)


def _print_value(output: Output, value: Value, as_json: bool) -> None:
    if as_json:
        output.json(value_to_json(value))
        return
    data = value.value
    for line in data if isinstance(data, list) else [data]:
        output.line(line.hex() if isinstance(line, bytes) else escaped(str(line)))


def _value_text(value: Value) -> str:
    name = escaped(value.name) or _DEFAULT
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
        yield from (("", change) for change in explain(hives.open_source(source, name)))
        return
    if not Path(source).is_dir():
        raise click.UsageError("A CIM alone does not show what it changed: give NEW, or its layer directory.")
    wanted = hives.NAMES if name is None else [hives.known_name(name)]
    for hive_name, delta in hives.deltas_of(source).items():
        if hive_name in wanted:
            yield from ((hive_name, change) for change in explain(delta))


def _differences(old: str, new: str, name: str | None) -> Iterator[tuple[str, Change]]:
    if name is not None or hives.is_hive(old) or hives.is_hive(new):
        before, after = (hives.open_source(path, None if hives.is_hive(path) else name) for path in (old, new))
        yield from (("", change) for change in diff(before, after))
        return
    with open_image(old) as old_image, open_image(new) as new_image:
        names = hives_of(old_image) | hives_of(new_image)
        for hive_name in names:
            before, after = open_hive(old_image, hive_name), open_hive(new_image, hive_name)
            yield from ((hive_name, change) for change in diff(before, after))


def _print_change(output: Output, hive: str, change: Change) -> None:
    place = escaped(f"{hive}\\{change.path}")
    if isinstance(change, DeltaChange):
        output.line(f"{_DELTA_MARKS[change.kind]} {place}")
        for value in change.sets:
            output.line(f"    ~ {_value_text(value)}")
        for name in change.deletes:
            output.line(f"    - {escaped(name) or _DEFAULT}")
        return
    properties = f"  ({', '.join(change.properties)})" if change.properties else ""
    output.line(f"{_MARKS[change.kind]} {place}{properties}")
    for value_change in change.values:
        mark = _MARKS[value_change.kind]
        if value_change.new is None:
            output.line(f"    {mark} {escaped(value_change.name) or _DEFAULT}")
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
    hive, (path,) = _located(source, names, "KEY")
    top = hives.key_at(hive, path)
    if sys.stdout.isatty():
        Output().text(reg_text(hive, top.path, root=root).replace("\r\n", "\n").rstrip("\n"))
    else:
        sys.stdout.buffer.write(reg_file(hive, top.path, root=root))
