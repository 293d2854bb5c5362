"""The CIMs that commands are given."""

from __future__ import annotations

import errno
from pathlib import Path

from cimfs_ext.reader import ImageReader
from cimlayer.layer.paths import get_cim_path_from_layer, is_cim_layer


def image_path(path: str) -> Path:
    """The ``.cim`` file for a command's argument: the path itself, or that of a layer directory."""
    if not Path(path).is_dir():
        return Path(path)
    cim = get_cim_path_from_layer(path)
    if not cim.exists():
        raise FileNotFoundError(errno.ENOENT, f"not a CIM layer: {cim} does not exist", path)
    return cim


def open_image(path: str) -> ImageReader:
    """Open a ``.cim`` file, or the CIM of a layer directory."""
    return ImageReader(image_path(path))


def require_layer(path: str) -> None:
    """Raise FileNotFoundError unless this is a layer with a CIM, complete or not."""
    if not is_cim_layer(path):
        raise FileNotFoundError(errno.ENOENT, f"not a CIM layer: {get_cim_path_from_layer(path)} does not exist", path)
