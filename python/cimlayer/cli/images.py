"""The images that the commands are given."""

from __future__ import annotations

import errno
from pathlib import Path

from cimfs_ext.reader import ImageReader
from cimlayer.layer.paths import get_cim_path_from_layer, is_cim_layer


def image_path(path: str) -> Path:
    """The ``.cim`` file that is meant: it itself, or that of a layer directory."""
    if not Path(path).is_dir():
        return Path(path)
    cim = get_cim_path_from_layer(path)
    if not cim.exists():
        raise FileNotFoundError(errno.ENOENT, f"no CIM layer: {cim} is not there", path)
    return cim


def open_image(path: str) -> ImageReader:
    """The image of a ``.cim`` file or of a layer directory."""
    return ImageReader(image_path(path))


def require_layer(path: str) -> None:
    """FileNotFoundError unless this is a layer directory with an image; what is left of one will do."""
    if not is_cim_layer(path):
        raise FileNotFoundError(errno.ENOENT, f"no CIM layer: {get_cim_path_from_layer(path)} is not there", path)
