"""Where the image of a layer lies: beside the layer directories, since an image and its forks share one directory."""

from __future__ import annotations

import contextlib
import itertools
import ntpath
import os
from collections.abc import Iterable
from pathlib import Path

from cimlayer.opendirectory import sync_directory

CIM_DIRECTORY = "cim-layers"

_LONGEST_PLAIN_PATH = 200  # of MAX_PATH's 260 characters: what lies below still needs some


def native_path(path: str | os.PathLike[str], *, windows: bool = os.name == "nt") -> str:
    r"""The absolute path as the system's calls take it.

    On Windows slashes of both kinds become backslashes, and a path that is too long for the old limit gets the prefix
    ``\\?\``, or ``\\?\UNC\`` for a share (Microsoft's "Maximum Path Length Limitation"). One that has such a prefix
    stays as it is.
    """
    text = os.fspath(path)
    if not windows:
        return os.path.abspath(text)
    if text.startswith(("\\\\?\\", "\\\\.\\")):
        return text
    text = ntpath.abspath(text)
    if len(text) <= _LONGEST_PLAIN_PATH:
        return text
    return "\\\\?\\UNC" + text[1:] if text.startswith("\\\\") else "\\\\?\\" + text


def _layer(layer_path: str | os.PathLike[str]) -> Path:
    path = Path(native_path(layer_path))
    if not path.name:
        raise ValueError(f"not the path of a layer directory: {layer_path!s}")
    return path


def get_cim_dir_from_layer(layer_path: str | os.PathLike[str]) -> Path:
    """The directory of the image of a layer (layer.md, "Where things lie")."""
    return _layer(layer_path).parent / CIM_DIRECTORY


def get_cim_name_from_layer(layer_path: str | os.PathLike[str]) -> str:
    """The file name of a layer's image."""
    return f"{_layer(layer_path).name}.cim"


def get_cim_path_from_layer(layer_path: str | os.PathLike[str]) -> Path:
    """The path of a layer's image."""
    return get_cim_dir_from_layer(layer_path) / get_cim_name_from_layer(layer_path)


def is_cim_layer(layer_path: str | os.PathLike[str]) -> bool:
    """Whether the layer's image exists."""
    return get_cim_path_from_layer(layer_path).is_file()


def make_directories(path: Path) -> list[Path]:
    """Make a directory and those above it; returns what was missing, the innermost first."""
    missing = list(itertools.takewhile(lambda directory: not directory.exists(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    return missing


def sync_directories(made: Iterable[Path]) -> None:
    """Wait until what :func:`make_directories` made can be found on the disk."""
    for directory in made:
        sync_directory(directory.parent)


def remove_directories(made: Iterable[Path]) -> None:
    """Take back what :func:`make_directories` made, as far as nobody uses it."""
    with contextlib.suppress(OSError):
        for directory in made:
            directory.rmdir()
