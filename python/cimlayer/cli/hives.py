"""The hives that the ``hive`` commands are given: hive files, or those of a layer."""

from __future__ import annotations

import errno
from pathlib import Path

import click

from cimfs_ext.names import upcase_key
from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive, Key
from cimlayer.cli.images import open_image
from cimlayer.cli.output import escaped
from cimlayer.errors import KeyNotFoundError, PathNotFoundError
from cimlayer.formats.hivelogs import open_hive_file
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.hivefiles import open_in_directory, open_in_image
from cimlayer.layer.standard import HIVES

NAMES = [names.name for names in HIVES]  # of the hives that a layer's deltas are for

_HIVE_MAGIC = b"regf"


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
    return open_hive_file(path)


def hives_of(image: ImageReader) -> dict[str, str]:
    """Name -> path in the CIM of the layer hives that exist."""
    return {names.name: names.base_path for names in HIVES if image.exists(names.base_path)}


def open_in(image: ImageReader, name: str) -> Hive:
    """Open a hive by the name of one of the five, by its name in ``Hives``, or by its path in the CIM."""
    places = [names.base_path for names in HIVES if upcase_key(names.name) == upcase_key(name)]
    places += [f"Hives\\{name}", name]
    for place in places:
        try:
            return open_in_image(image, place, f"{image.name}:{place}")
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
            found[names.name] = open_in_directory(directory, names.delta_path, str(path))
    return found


def key_at(hive: Hive, path: str) -> Key:
    """The key at a path with backslashes; a slash is part of a name."""
    if "/" in path and path not in hive:
        raise KeyNotFoundError("no such key (backslashes separate keys)", f"{hive.name}: {path}")
    return hive.key(path)
