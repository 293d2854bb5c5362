"""What killed processes have left: files of no image, and directories of layers that were half written or destroyed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cimfs_ext.imagepath import CIM_DIRECTORY
from cimlayer.errors import ImageBusyError
from cimlayer.host.interrupts import deferred
from cimlayer.image.files import DiskFile, ImageDirectory
from cimlayer.image.garbage import orphans_held, remove_files
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.marks import Mark, MarkKind, marked_images
from cimlayer.layer.paths import images_of
from cimlayer.layer.standard import WRITTEN_FILES


def collect_garbage(directory: str | os.PathLike[str], *, delete: bool = False) -> list[DiskFile]:
    """Find what killed processes have left in a directory of images, or in a store, and remove it if ``delete`` is set.

    Region and object ID files that no image refers to, and drafts; where the directory is that of layers
    (``cim-layers``), also the directories of layers that were half written or half destroyed, as ``../NAME``, without a
    size. What running writers have is left alone, and so are all other files. If any image cannot be read,
    CorruptImageError: what it refers to is not known. OSError if the directory cannot be listed.
    """
    path = images_of(directory)
    with deferred():
        with orphans_held(path) as (_, found):
            if delete:
                remove_files(path, [orphan.name for orphan in found])
        if path.name == CIM_DIRECTORY:
            found += [DiskFile(str(Path("..", name)), None) for name in unfinished_layers(path, delete=delete)]
    return found


def broken_images(directory: str | os.PathLike[str]) -> dict[str, list[str]]:
    """The images of a directory, or of a store, of which region files are gone, such as their parents', with these."""
    images = ImageDirectory(images_of(directory))
    return {name: missing for name in images.region_sets if (missing := images.missing(name))}


def unfinished_layers(path: Path, *, delete: bool, spared: Callable[[str], bool] = lambda _: False) -> list[str]:
    """The directories of layers with a mark that nobody holds, and with no image; not those that are ``spared``."""
    found = []
    for image_path, kind in marked_images(path):
        if spared(image_path.stem):
            continue
        try:
            mark = Mark(image_path, kind)
        except ImageBusyError:
            continue  # somebody is at work on it
        layer = layer_of(image_path)
        unfinished = not image_path.exists() and layer.is_dir() and not layer.is_symlink()
        if unfinished:
            found.append(layer.name)
        if unfinished and delete:
            remove_layer_directory(layer, whole=kind is MarkKind.DESTROYING)
        if unfinished and not delete:
            mark.leave()
        else:
            mark.clear()
    return found


def remove_layer_directory(layer: Path, *, whole: bool) -> None:
    """Remove a layer directory, or what an import writes to it: other files stay then, and what holds them."""
    if whole:
        shutil.rmtree(layer)
        return
    LayerDirectory(layer).clear(WRITTEN_FILES)
    for above, _, _ in os.walk(layer, topdown=False):
        with suppress(OSError):
            Path(above).rmdir()


def layer_of(image_path: Path) -> Path:
    """The directory of the layer whose image has that path."""
    return image_path.parent.parent / image_path.stem
