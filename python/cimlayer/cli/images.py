"""The images that the commands are given."""

from __future__ import annotations

import errno
from pathlib import Path

from cimfs_ext.reader import ImageReader
from cimlayer.paths import get_cim_path_from_layer


def open_image(path: str) -> ImageReader:
    """The image of a ``.cim`` file or of a layer directory."""
    if not Path(path).is_dir():
        return ImageReader(path)
    cim = get_cim_path_from_layer(path)
    if not cim.exists():
        raise FileNotFoundError(errno.ENOENT, f"no CIM layer: {cim} is not there", path)
    return ImageReader(cim)
