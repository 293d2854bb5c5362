"""Destroying a layer: its image, and its directory (hcsshim, internal/wclayer/cim/common.go, is the model)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from cimfs_ext.regionsets import read_region_sets
from cimlayer.errors import CorruptImageError, ImageBusyError
from cimlayer.host.interrupts import deferred
from cimlayer.host.opendirectory import OpenDirectory
from cimlayer.host.paths import native_path
from cimlayer.image.files import ImageDirectory
from cimlayer.image.garbage import remove_files
from cimlayer.image.locking import held, patiently
from cimlayer.layer.garbage import remove_layer_directory
from cimlayer.layer.marks import Mark, MarkKind, is_marked
from cimlayer.layer.paths import get_cim_path_from_layer, is_cim_layer


def destroy_cim_layer(layer_path: str | os.PathLike[str], *, force: bool = False, lock_timeout: float = 0) -> None:
    """Remove a layer: its image's own files, the ``.cim`` file and the layer directory.

    If the layer has no image, nothing happens, since callers pass the root of all layers by mistake; but what a process
    that was killed while it wrote or destroyed the layer has left is removed. The parents' files are never touched.

    A layer stays, unless ``force`` is set, with an OSError (ENOTEMPTY) that names the reason: other images are forked
    from it, or may be, since they cannot be read; another image has the same region set. CorruptImageError if the
    image itself cannot be read. A layer whose parents' files are gone is of no use to its children, and is removed
    whoever they are. ImageBusyError after ``lock_timeout`` seconds in which the image was being forked, extended or
    destroyed by others. NotADirectoryError if the layer directory is a symbolic link or no directory.

    The ``.cim`` file goes first, and nothing else before that is on the disk; then the rest goes, whatever fails or
    interrupts, and the error is raised at the end.
    """
    layer = Path(native_path(layer_path))
    if not layer.name:
        return  # the root of a filesystem
    image_path = get_cim_path_from_layer(layer_path)
    if image_path.parent == layer:
        raise ValueError(f"not the path of a layer directory, but of the images: {layer_path!s}")
    if is_cim_layer(layer_path):
        patiently(lambda: _destroy(layer, image_path, force), lock_timeout)
        return
    if is_unfinished(layer_path):
        patiently(lambda: _finish(layer, image_path), lock_timeout)


def is_unfinished(layer_path: str | os.PathLike[str]) -> bool:
    """Whether a process was killed, or is at work, that began to write or to destroy the layer."""
    image_path = get_cim_path_from_layer(layer_path)
    return any(is_marked(image_path, kind) for kind in MarkKind)


def _destroy(layer: Path, image_path: Path, force: bool) -> None:
    _check_directory(layer)
    with held(image_path, "the image is being forked, extended or destroyed"):
        own_files = _own_files(image_path, force)
        with deferred(), contextlib.ExitStack() as rest, OpenDirectory(image_path.parent) as images:
            if is_marked(image_path, MarkKind.WRITING):
                Mark(image_path, MarkKind.WRITING).clear()  # which could not be removed when the layer was complete
            if own_files:
                with contextlib.suppress(FileNotFoundError):
                    rest.enter_context(held(image_path.parent / own_files[0], "the region files are being removed"))
            mark = _mark(image_path)
            if mark is not None:
                rest.callback(mark.leave)
            try:
                images.remove(image_path.name)  # first, also on the disk: without its regions it would look damaged
            except OSError:
                if mark is not None:
                    mark.clear()
                raise
            interrupt = _synced(images)
            if mark is not None:
                rest.callback(mark.clear)
            rest.callback(_remove_directory, layer)
            for name in own_files:  # the first one last: while it is held, nobody makes these files anew
                rest.callback(remove_files, image_path.parent, [name])
        if interrupt is not None:
            raise interrupt


def _synced(images: OpenDirectory) -> BaseException | None:
    """Wait for the disk; OSError if that fails. An interrupt is raised later: what has begun is finished."""
    try:
        images.sync()
    except OSError:
        raise
    except BaseException as interrupt:
        return interrupt
    return None


def _mark(image_path: Path) -> Mark | None:
    """Where the disk is too full for a mark, a layer is destroyed without."""
    try:
        return Mark(image_path, MarkKind.DESTROYING)
    except ImageBusyError:
        raise
    except OSError:
        return None


def _finish(layer: Path, image_path: Path) -> None:
    """Remove what a killed process has left; the image's files are no image's, and those of gc."""
    _check_directory(layer)
    with deferred(), contextlib.ExitStack() as done:
        for kind in MarkKind:
            if is_marked(image_path, kind):
                mark = Mark(image_path, kind)
                done.callback(mark.leave)
                if not image_path.exists():
                    _remove_directory(layer)
                mark.clear()


def _check_directory(layer: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(layer).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "the layer directory is a link, or no directory", str(layer))


def _remove_directory(layer: Path) -> None:
    if layer.is_dir():
        remove_layer_directory(layer, whole=True)


def _own_files(image_path: Path, force: bool) -> list[str]:
    """The files of the image's own region set, unknown if it is damaged; OSError if others need them."""
    try:
        own = read_region_sets(image_path)[-1]
    except CorruptImageError:
        if not force:
            raise
        return []
    if not force:
        needing = list(_reasons_to_stay(ImageDirectory(image_path.parent), image_path.name, own.set_id))
        if needing:
            raise OSError(errno.ENOTEMPTY, "; ".join(needing), str(image_path))
    return own.file_names()


def _reasons_to_stay(images: ImageDirectory, name: str, set_id: UUID) -> Iterator[str]:
    own = {file for one in images.region_sets.get(name, ())[-1:] for file in one.file_names()}
    if set(images.missing(name)) - own:
        return  # a parent's files are gone, and so nobody can use it
    others = {other: [one.set_id for one in sets] for other, sets in images.region_sets.items() if other != name}
    if forks := [other for other, ids in others.items() if set_id in ids[:-1]]:
        yield f"CIMs are forked from it: {', '.join(forks)}"
    if twins := [other for other, ids in others.items() if set_id == ids[-1]]:
        yield f"CIMs have the same region set: {', '.join(twins)}"
    for other, error in images.unreadable.items():
        yield f"{other}, which cannot be read ({error.strerror}), may be forked from it"
