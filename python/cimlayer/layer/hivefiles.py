"""Hives of a layer or an image, found by name; no more of a file is read than a hive can be."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from pathlib import PurePath
from typing import BinaryIO

from cimfs_ext.hivesource import read_file
from cimfs_ext.names import upcase_key
from cimfs_ext.reader import ImageReader, path_text
from cimfs_ext.regf import Hive
from cimlayer.errors import PathNotFoundError
from cimlayer.formats.hivelogs import logs_among
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.standard import HIVES

_BASE_BLOCK = 4096
_BINS_SIZE = slice(40, 44)  # in the base block: bytes of the hive bins that follow it
_MOST_BINS = (1 << 31) - 1
_MOST_LOG = 1 << 26  # bytes: Windows lets a log grow to a fraction of that

# Root keys of the registry (Microsoft, "Predefined Keys"). Hives are below the first two (Microsoft, "Registry Hives").
_MACHINE = ("HKLM", "HKEY_LOCAL_MACHINE")
_USERS = ("HKU", "HKEY_USERS")
_OTHERS = ("HKCU", "HKEY_CURRENT_USER", "HKCR", "HKEY_CLASSES_ROOT", "HKCC", "HKEY_CURRENT_CONFIG")


def hives_of(image: ImageReader) -> dict[str, str]:
    """Name -> path in the image of the layer hives that exist."""
    return {names.name: names.base_path for names in HIVES if image.exists(names.base_path)}


def split_registry_path(path: str) -> tuple[str, str] | None:
    r"""The hive and the key in it of ``HKLM\SOFTWARE\...``; None where a path does not begin with a root key.

    Both names of each root key are known, in any case. FileNotFoundError for what no hive of a layer has.
    """
    root, _, below = path.strip("\\").partition("\\")
    name, _, key = below.partition("\\")
    if root.upper() in _MACHINE and name:
        return name, key
    if root.upper() in _USERS and name.upper() == ".DEFAULT":
        return "DEFAULT", key
    if root.upper() in (*_MACHINE, *_USERS, *_OTHERS):
        raise FileNotFoundError(errno.ENOENT, "not in a hive of a layer: these are HKLM\\NAME and HKU\\.DEFAULT", path)
    return None


def open_hive(image: ImageReader | str | os.PathLike[str], name: str | PurePath) -> Hive:
    r"""Open a hive of a layer, or of an image, with what the layers below it have in it.

    ``image`` is an open image, or the path of one or of a layer directory. ``name`` is ``SYSTEM``, ``SOFTWARE``,
    ``SAM``, ``SECURITY`` or ``DEFAULT``, the name of a file in ``Hives``, or a path in the image, in any case;
    ``HKLM\SOFTWARE`` is ``SOFTWARE``. The hive's root is that key: paths in it begin below.

    FileNotFoundError, which names the hives that there are, if this one is not. CorruptHiveError, ImageError.
    """
    if not isinstance(image, ImageReader):
        with ImageReader(image) as opened:
            return open_hive(opened, name)
    name = path_text(name)
    in_registry = split_registry_path(name)
    if in_registry is not None:
        name, key = in_registry
        if key:
            raise ValueError(f"{name} is a hive, and {key} a key in it: open the hive")
    places = [names.base_path for names in HIVES if upcase_key(names.name) == upcase_key(name)]
    for place in (*places, f"Hives\\{name}", name):
        with contextlib.suppress(PathNotFoundError, IsADirectoryError):
            return open_in_image(image, place, f"{image.name}:{place}")
    known = ", ".join(hives_of(image)) or "none"
    raise FileNotFoundError(errno.ENOENT, f"no such hive in {image.name} (it has: {known})", name)


def read_hive(file: BinaryIO) -> bytes | memoryview:
    """The hive at the beginning of a seekable file, for ``Hive.open`` to judge (docs/format.md, "Hives").

    As many bytes as the base block says there are, at most 2 GiB; of anything that does not begin like a hive, only
    enough to recognise that.
    """
    base = file.read(_BASE_BLOCK)
    bins = int.from_bytes(base[_BINS_SIZE], "little")
    if not base.startswith(b"regf") or bins > _MOST_BINS:
        return base
    there = file.seek(0, io.SEEK_END)
    file.seek(0)
    return read_file(file, min(_BASE_BLOCK + bins, there))


def open_in_directory(directory: LayerDirectory, path: str, name: str, *, may_be_empty: bool = False) -> Hive:
    """Open a hive of a layer directory, with the logs beside it; errors call it ``name``.

    ``may_be_empty``: a file of 0 bytes, as base layers of build tools have, counts as a hive without content.
    """
    with directory.open(path) as file:
        data = read_hive(file)
    folder, _, hive = path.rpartition("\\")
    logs = []
    for log in logs_among(hive, directory.names(folder)):
        with directory.open(f"{folder}\\{log}" if folder else log) as file:
            logs.append(file.read(_MOST_LOG))
    if may_be_empty and not data:
        return Hive.empty(0, name=name)
    return Hive.open(data, logs=logs, name=name)


def open_in_image(image: ImageReader, path: str, name: str) -> Hive:
    """Open a hive of an image, with the logs beside it; one of 0 bytes has no content. Errors call it ``name``."""
    with io.BufferedReader(image.open(path)) as file:
        data = read_hive(file)
    folder, _, hive = path.replace("/", "\\").rpartition("\\")
    logs = []
    for log in logs_among(hive, [entry.name for entry in image.listdir(folder)]):
        with (
            contextlib.suppress(IsADirectoryError),
            io.BufferedReader(image.open(f"{folder}\\{log}" if folder else log)) as file,
        ):
            logs.append(file.read(_MOST_LOG))
    return Hive.open(data, logs=logs, name=name) if data else Hive.empty(0, name=name)
