"""Destroying a layer: its image, and its directory (hcsshim, internal/wclayer/cim/common.go, is the model)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from cimfs_ext.reader import read_region_sets
from cimlayer.errors import CorruptImageError
from cimlayer.host.opendirectory import OpenDirectory
from cimlayer.host.paths import native_path
from cimlayer.image.files import may_be_image, set_ids
from cimlayer.image.locking import locked
from cimlayer.layer.paths import get_cim_path_from_layer, is_cim_layer


def destroy_cim_layer(layer_path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Remove a layer: its image's own files, the ``.cim`` file and the layer directory.

    If the layer's image does not exist, nothing happens: callers pass the root of all layers by mistake. A layer that
    other images are forked from stays, with an OSError (ENOTEMPTY) that names them, unless ``force`` is set, and so
    does one whose image is damaged, since nobody can tell (CorruptImageError). The parents' files are never touched.
    ImageBusyError: an image is being written beside it, which may become its child.

    The ``.cim`` file goes first, and nothing else before that is on the disk. If something cannot be removed after
    that, the rest is, and the OSError names it; files that it leaves of the image are what
    :func:`~cimlayer.image.garbage.collect_garbage` looks for.
    """
    if not is_cim_layer(layer_path):
        return
    image_path = get_cim_path_from_layer(layer_path)
    if image_path.parent == Path(native_path(layer_path)):
        raise ValueError(f"not the path of a layer directory, but of the images: {layer_path!s}")
    with locked(image_path.parent) if os.name == "posix" else contextlib.nullcontext():
        own_files = _own_files(image_path, force)
        has_directory = Path(layer_path).is_dir()
        with OpenDirectory(image_path.parent) as images:
            images.remove(image_path.name)  # first, also on the disk: an image without its regions would look damaged
            images.sync()
        with contextlib.ExitStack() as rest:  # all of it is done, whatever fails
            if has_directory:
                rest.callback(shutil.rmtree, layer_path)
            for name in own_files:
                rest.callback((image_path.parent / name).unlink, missing_ok=True)


def _own_files(image_path: Path, force: bool) -> list[str]:
    """The files of the image's own region set, unknown if it is damaged; OSError if other images refer to them."""
    try:
        own = read_region_sets(image_path)[-1]
    except CorruptImageError:
        if not force:
            raise
        return []
    beside = (path for path in sorted(image_path.parent.iterdir()) if may_be_image(path))
    children = [path.name for path in beside if _forks(path, image_path, own.set_id)]
    if children and not force:
        raise OSError(errno.ENOTEMPTY, f"layers are forked from it: {', '.join(children)}", str(image_path))
    return own.file_names()


def _forks(path: Path, image_path: Path, set_id: object) -> bool:
    if path == image_path:
        return False
    try:
        return set_id in set_ids(path)[1:]
    except (CorruptImageError, FileNotFoundError):  # lost already
        return False
