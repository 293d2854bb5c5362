"""A whole container image into a chain of CIM layers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cimfs_ext.reader import ImageReader
from cimlayer.blobs.arrival import PIECE
from cimlayer.blobs.readahead import PieceReader
from cimlayer.errors import ImageError
from cimlayer.events import CancellationToken, ProgressCallback
from cimlayer.host.directories import sync_directories, taken_back
from cimlayer.host.interrupts import deferred
from cimlayer.layer.paths import get_cim_path_from_layer, is_cim_layer, store_of
from cimlayer.layer.processing import UtilityVm
from cimlayer.layer.standard import RECORD
from cimlayer.layer.store.keys import ByteOptions
from cimlayer.limits import DEFAULT_LIMITS, Limits
from cimlayer.oci.imported import ImportedImage, ImportedLayer
from cimlayer.oci.locations import opened_source
from cimlayer.oci.origins import RECORD_LIMIT
from cimlayer.oci.planned import PlannedLayer, WriterOptions, check_presence, layer_stream, plan_layers, write_planned
from cimlayer.oci.platforms import Platform
from cimlayer.oci.selection import ContainerImage, select
from cimlayer.oci.sources import ImageSource
from cimlayer.tasks import LayerTask
from cimlayer.tracing import span

_PIECES_AHEAD = (32 << 20) // PIECE  # of the next layer's tar, ready when a layer has been committed


def import_image(
    source: str | os.PathLike[str] | ImageSource,
    directory: str | os.PathLike[str],
    *,
    reference: str | None = None,
    platform: str | Platform | None = None,
    os_version: str | None = None,
    sync: bool = True,
    reproducible: bool = False,
    utility_vm: UtilityVm = "auto",
    scratch_disks: bool = True,
    jobs: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    lock_timeout: float = 0,
    progress: ProgressCallback | None = None,
    cancel: CancellationToken | None = None,
) -> ImportedImage:
    """Import the layers of a container image as a chain of CIM layers in ``directory``, made if it is missing.

    It is the store, whose ``cim-layers`` may be given as well.

    ``source`` is the path of an OCI image layout, a docker archive or a folder of ``skopeo copy ... dir:`` (a folder,
    or a tar that may be compressed), ``"-"`` for such a tar on standard input, skopeo's notation ``oci:DIR[:REF]``,
    ``oci-archive:FILE[:REF]``, ``docker-archive:FILE[:REF]`` or ``dir:DIR``, or any :class:`~cimlayer.ImageSource`.
    What is compressed, or cannot be read at any place, is unpacked to a temporary file first.

    ``reference`` says which image of several: a name, ``@N`` for the entry of that number (from 0), or the digest of a
    manifest or index. ``platform`` is ``OS/ARCHITECTURE/OS.VERSION``, from the left as far as it matters,
    ``os_version`` is its last part alone; by default an image for Windows is taken. The build of a version must be
    the wanted one; of one name the newest revision wins, and an image without a version is taken if no version fits
    (containerd's ``platforms``, the matcher for Windows).

    A layer's directory has its chain ID's hex digits as name; one that is there already, made from the same layers,
    is used again. The other arguments are those of :func:`~cimlayer.import_layer`, and ``limits`` are those of each
    layer; while one layer is committed, the next one's tar is being decompressed.

    The digests of the manifest, the configuration and every blob and the diff ID of every layer are verified, the
    layers' while they are imported: no layer is committed before all of it has been verified. A failure leaves the
    layers below as they are, for the next attempt, and nothing of the layer that failed. Beside what
    :func:`~cimlayer.import_layer` raises: ValueError if no image, or more than one, is what is wanted;
    FileNotFoundError for a blob that is not in the source, with its URLs if the manifest has any; FileExistsError if
    something else has the place of a layer.
    """
    cancel = CancellationToken(cancel)
    wanted = Platform.wanted(platform, os_version)
    byte_options = ByteOptions(reproducible, utility_vm, scratch_disks)
    root = store_of(directory)
    with opened_source(source, reference, cancel, limits) as (images, named), span("import_image", source=images.name):
        image = select(images, wanted, named, cancel.raise_if_cancelled)
        plan = plan_layers(images.name, image, lambda chain_id: root / chain_id.hex, byte_options.changed())
        done = _reused(plan, progress)
        check_presence(images, plan[len(done) :])
        options = WriterOptions(
            sync=sync,
            reproducible=reproducible,
            utility_vm=utility_vm,
            scratch_disks=scratch_disks,
            lock_timeout=lock_timeout,
            cancel=cancel,
        )
        with deferred(cancel), _made(root, sync):
            done += _import(images, plan, len(done), jobs, limits, progress, options)
    return _result(image, done)


def _result(image: ContainerImage, layers: Sequence[ImportedLayer]) -> ImportedImage:
    return ImportedImage(layers[-1].path, str(image.platform), image.digest, image.config_digest, tuple(layers))


def _import(
    images: ImageSource,
    plan: Sequence[PlannedLayer],
    first: int,
    jobs: int | None,
    limits: Limits,
    progress: ProgressCallback | None,
    options: WriterOptions,
) -> list[ImportedLayer]:
    """Import the layers of a plan from the ``first`` on."""
    cancel = options["cancel"]
    reading = CancellationToken(cancel)
    streams = (layer_stream(images, layer.layer, limits, reading) for layer in plan[first:])
    imported = []
    with PieceReader(streams, reading, jobs, _PIECES_AHEAD) as reader:
        for at in range(first, len(plan)):
            parents = [below.path for below in reversed(plan[:at])]
            task = _task(plan, at, progress)
            imported.append(write_planned(plan[at], parents, reader.pieces(), task, limits, options))
    return imported


def _task(plan: Sequence[PlannedLayer], at: int, progress: ProgressCallback | None) -> LayerTask:
    layer = plan[at]
    return LayerTask(layer.path.name, at + 1, len(plan), layer.digest, layer.layer.blob.size, progress)


# ---- layers that are there ----


def _reused(plan: Sequence[PlannedLayer], progress: ProgressCallback | None) -> list[ImportedLayer]:
    """The layers of a plan, from the base up, that need not be made; FileExistsError if others are in the way."""
    reused = []
    parent: Path | None = None
    for at, layer in enumerate(plan):
        if not is_cim_layer(layer.path):
            break
        size = _recorded_size(layer, parent)
        _task(plan, at, progress).reused(size)
        reused.append(layer.imported(size, reused=True))
        parent = layer.path
    for layer in plan[len(reused) :]:
        if is_cim_layer(layer.path):
            raise _in_the_way(layer, "a layer below it is missing, so it cannot be complete")
    return reused


def _recorded_size(layer: PlannedLayer, parent: Path | None) -> int:
    """The size of the files of a layer that is there and is the one that is wanted."""
    try:
        with (layer.path / RECORD).open("rb") as file:
            record = json.loads(file.read(RECORD_LIMIT))
        size = record.get("bytes") if isinstance(record, dict) else None
        if not isinstance(size, int) or {key: record.get(key) for key in layer.identity} != layer.identity:
            raise ValueError
    except (OSError, ValueError, RecursionError) as error:
        raise _in_the_way(layer, f"its {RECORD} does not say that it is the same") from error
    try:
        with ImageReader(get_cim_path_from_layer(layer.path)) as image:
            below = image.region_sets[:-1]
        if parent is not None:
            with ImageReader(get_cim_path_from_layer(parent)) as image:
                expected = image.region_sets
        else:
            expected = []
    except ImageError as error:
        raise _in_the_way(layer, f"it is damaged: {error}") from error
    if [each.set_id for each in below] != [each.set_id for each in expected]:
        raise _in_the_way(layer, "it was made on other layers than those below it now")
    return size


def _in_the_way(layer: PlannedLayer, why: str) -> FileExistsError:
    return FileExistsError(
        errno.EEXIST, f"a layer is there, but cannot be used again ({why}); destroy it first", str(layer.path)
    )


@contextlib.contextmanager
def _made(root: Path, sync: bool) -> Iterator[None]:
    """The directory of the layers; one that was made for an image that failed goes again, if nothing is in it."""
    made = [] if root.exists() else [root]
    with taken_back(made):
        root.mkdir(exist_ok=True)
        if sync:
            sync_directories(made)
        yield
