"""The hives that the ``hive`` commands are given: hive files, or those of a layer."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import click

from cimfs_ext.regf import Hive, Key
from cimlayer.cli.output import escaped
from cimlayer.errors import KeyNotFoundError
from cimlayer.formats.hivelogs import open_hive_file
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.hivefiles import open_hive, open_in_directory
from cimlayer.layer.standard import HIVES

NAMES = [names.name for names in HIVES]  # of the hives that a layer's deltas are for

STANDARD_INPUT = "-"
_HIVE_MAGIC = b"regf"


def is_hive(path: str) -> bool:
    """Whether a path is a hive file rather than a CIM or a layer; OSError for anything but a file or a directory.

    Standard input (-) is one.
    """
    if path == STANDARD_INPUT:
        return True
    source = Path(path)
    if source.is_dir():
        return False
    if source.exists() and not source.is_file():
        raise OSError(errno.EINVAL, "not a regular file", path)
    with source.open("rb") as file:
        return file.read(len(_HIVE_MAGIC)) == _HIVE_MAGIC


def open_file(path: str) -> Hive:
    """Open a hive file; the transaction logs beside it are applied if it is dirty. - is standard input."""
    if path == STANDARD_INPUT:
        return Hive.open(sys.stdin.buffer, name="standard input")
    return open_hive_file(path)


def open_source(source: str, name: str | None) -> Hive:
    """Open a hive file or, with a name, a hive of a CIM or a layer."""
    if is_hive(source):
        if name is not None:
            raise click.UsageError(f"{escaped(source)} is a hive file: do not name a hive ({escaped(name)!r}).")
        return open_file(source)
    if name is None:
        raise click.UsageError(f"Name a hive of {escaped(source)}.")
    return open_hive(source, name)


def known_name(name: str) -> str:
    """The name of one of the five hives, given in any case."""
    if name.upper() not in NAMES:
        raise FileNotFoundError(errno.ENOENT, f"no such hive (deltas exist for: {', '.join(NAMES)})", name)
    return name.upper()


def deltas_of(layer: str) -> dict[str, Hive]:
    """Name -> the delta hive in a layer's directory. (A child's CIM holds its parents' deltas too.)"""
    directory = LayerDirectory(Path(layer))
    found = {}
    for names in HIVES:
        path = directory.find(names.delta_path)
        if path is not None:
            found[names.name] = open_in_directory(directory, names.delta_path, str(path))
    return found


def key_at(hive: Hive, path: str) -> Key:
    """The key at a path with backslashes; a slash is part of a name."""
    if "/" in path and path not in hive:
        raise KeyNotFoundError("no such key (backslashes separate keys)", f"{hive.name}: {path}")
    return hive.key(path)
