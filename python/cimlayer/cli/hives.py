"""The hives that the ``hive`` commands are given: hive files, or those of a layer."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path

import click

from cimfs_ext.names import upcase_key
from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive, Key
from cimlayer.cli.images import open_image
from cimlayer.cli.output import escaped
from cimlayer.errors import DirtyHiveWarning, PathNotFoundError
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.hivefiles import read_hive, read_hive_of
from cimlayer.layer.standard import HIVES

NAMES = [names.name for names in HIVES]  # of the hives that a layer's deltas are for

_HIVE_MAGIC = b"regf"
_LOGS = (".LOG", ".LOG1", ".LOG2")


def is_hive(path: str) -> bool:
    """Whether a path is a hive file rather than a CIM or a layer; OSError for anything but a file or a directory."""
    source = Path(path)
    if source.is_dir():
        return False
    if source.exists() and not source.is_file():
        raise OSError(errno.EINVAL, "not a regular file", path)
    with source.open("rb") as file:
        return file.read(len(_HIVE_MAGIC)) == _HIVE_MAGIC


def open_file(path: str) -> Hive:
    """Open a hive file; the transaction logs beside it are applied if it is dirty."""
    logs = [path + suffix for suffix in _LOGS if Path(path + suffix).is_file()]
    return _open(path, logs, path)


def hives_of(image: ImageReader) -> dict[str, str]:
    """Name -> path in the CIM of the layer hives that exist."""
    return {names.name: names.base_path for names in HIVES if image.exists(names.base_path)}


def open_in(image: ImageReader, name: str) -> Hive:
    """Open a hive by the name of one of the five, by its name in ``Hives``, or by its path in the CIM."""
    places = [names.base_path for names in HIVES if upcase_key(names.name) == upcase_key(name)]
    places += [f"Hives\\{name}", name]
    for place in places:
        try:
            return _open(read_hive_of(image, place), [], f"{image.name}:{place}")
        except (PathNotFoundError, IsADirectoryError):
            continue
    known = ", ".join(hives_of(image)) or "none"
    raise FileNotFoundError(errno.ENOENT, f"no such hive in {image.name} (it has: {known})", name)


def open_hive(source: str, name: str | None) -> Hive:
    """Open a hive file or, with a name, a hive of a CIM or a layer."""
    if is_hive(source):
        if name is not None:
            raise click.UsageError(f"{escaped(source)} is a hive file: do not name a hive ({escaped(name)!r}).")
        return open_file(source)
    if name is None:
        raise click.UsageError(f"Name a hive of {escaped(source)}.")
    with open_image(source) as image:
        return open_in(image, name)


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
            with directory.open(names.delta_path) as file:
                found[names.name] = _open(read_hive(file), [], str(path))
    return found


def key_at(hive: Hive, path: str) -> Key:
    """The key at a path with slashes or backslashes."""
    inner = path.replace("/", "\\").strip("\\")
    if inner not in hive:
        raise FileNotFoundError(errno.ENOENT, "no such key", f"{hive.name}: {inner}")
    return hive.key(inner)


def _open(source: bytes | str | os.PathLike[str], logs: list[str], name: str) -> Hive:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DirtyHiveWarning)
        hive = Hive.open(source, logs=logs, name=name)
    for warning in caught:
        click.echo(f"cimlayer: warning: {escaped(str(warning.message))}", err=True)
    return hive
