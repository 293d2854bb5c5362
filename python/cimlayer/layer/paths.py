"""Where a layer's image is: in a directory beside the layer directories, which images and their forks share."""

from __future__ import annotations

import os
from pathlib import Path

from cimfs_ext.imagepath import CIM_DIRECTORY
from cimlayer.host.paths import native_path


def _layer(layer_path: str | os.PathLike[str]) -> Path:
    path = Path(native_path(layer_path))
    if not path.name:
        raise ValueError(f"not the path of a layer directory: {layer_path!s}")
    return path


def get_cim_dir_from_layer(layer_path: str | os.PathLike[str]) -> Path:
    """The directory of a layer's image (hcsshim, internal/wclayer/cim/common.go)."""
    return _layer(layer_path).parent / CIM_DIRECTORY


def get_cim_name_from_layer(layer_path: str | os.PathLike[str]) -> str:
    """The file name of a layer's image."""
    return f"{_layer(layer_path).name}.cim"


def get_cim_path_from_layer(layer_path: str | os.PathLike[str]) -> Path:
    """The path of a layer's image."""
    return get_cim_dir_from_layer(layer_path) / get_cim_name_from_layer(layer_path)


def store_of(directory: str | os.PathLike[str]) -> Path:
    """The directory of a store, which holds layers, where it or its directory of images is given."""
    path = Path(os.path.abspath(directory))
    return path.parent if path.name == CIM_DIRECTORY else path


def images_of(directory: str | os.PathLike[str]) -> Path:
    """The directory of images, where it or that of the store is given."""
    path = Path(directory)
    below = path / CIM_DIRECTORY
    return below if below.is_dir() else path


def is_cim_layer(layer_path: str | os.PathLike[str]) -> bool:
    """Whether the layer's image exists. The root of a filesystem has none."""
    return bool(Path(native_path(layer_path)).name) and get_cim_path_from_layer(layer_path).is_file()
