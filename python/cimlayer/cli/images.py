"""The CIMs that commands are given."""

from __future__ import annotations

import errno

from cimfs_ext.reader import ImageReader


def open_image(path: str) -> ImageReader:
    """Open a ``.cim`` file, or the CIM of a layer directory."""
    return ImageReader(path)


def require_layer(path: str) -> None:
    """Raise FileNotFoundError unless this is a layer with a CIM, complete or not."""
    from cimlayer.layer.paths import get_cim_path_from_layer, is_cim_layer  # noqa: PLC0415  few commands need it

    if not is_cim_layer(path):
        raise FileNotFoundError(errno.ENOENT, f"not a CIM layer: {get_cim_path_from_layer(path)} does not exist", path)
