"""Paths as callers give them: of images, which a layer directory stands for too, and in images."""

# pathlib takes its time to load.
# ruff: noqa: PTH110, PTH112, PTH118, PTH122

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cimfs_ext.errors import ImageNotFoundError

if TYPE_CHECKING:
    from pathlib import PurePath

CIM_DIRECTORY = "cim-layers"  # beside layer directories, as hcsshim and containerd name it
_SEPARATORS = os.sep + (os.altsep or "")


def host_path(path: str | os.PathLike[str]) -> str:
    """A path of the host as text; TypeError for bytes and what is no path."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is str or os.PathLike[str], not {type(path).__name__}")
    return text


def inner_path(path: str | PurePath) -> str:
    """A path in an image as text, as it was given; TypeError for what is neither str nor PurePath."""
    if isinstance(path, str):
        return path
    from pathlib import PurePath  # noqa: PLC0415  which takes its time to load

    if not isinstance(path, PurePath):
        raise TypeError(f"a path in an image is str or PurePath, not {type(path).__name__}")
    return str(path) if path.parts else ""


def split_path(path: str | os.PathLike[str]) -> tuple[str, str]:
    """The directory and the name of the image that a path means; ValueError for a NUL."""
    directory, name = os.path.split(image_path(path))
    if "\0" in directory or "\0" in name:
        raise ValueError("embedded null byte")
    return directory or os.curdir, name


def image_path(path: str | os.PathLike[str]) -> str:
    """The ``.cim`` file that is meant: that of a layer, if the path is one of a directory, else the path itself.

    ImageNotFoundError if the directory is none of a layer. (hcsshim, internal/wclayer/cim/common.go)
    """
    text = host_path(path)
    if not os.path.isdir(text):
        return text
    parent, name = os.path.split(text.rstrip(_SEPARATORS))
    if name in ("", os.curdir, os.pardir):
        parent, name = os.path.split(os.path.abspath(text))
    if os.path.splitext(name)[1] == ".cim":
        return text
    image = os.path.join(parent, CIM_DIRECTORY, f"{name}.cim")
    if not os.path.exists(image):
        raise ImageNotFoundError(errno.ENOENT, f"not a CIM layer: {image} does not exist", text)
    return image
