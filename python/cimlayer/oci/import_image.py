"""A whole image into a chain of CIM layers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from cimfs_ext.reader import ImageReader
from cimlayer.blobs.digests import Digest, chain_ids
from cimlayer.blobs.readahead import PieceReader
from cimlayer.blobs.streams import PIECE, LayerStream
from cimlayer.errors import DigestMismatchError, FormatError, ImageError, LimitError
from cimlayer.events import CancellationToken, ProgressCallback
from cimlayer.host.opendirectory import sync_directory
from cimlayer.layer.paths import get_cim_path_from_layer, is_cim_layer
from cimlayer.layer.processing import UtilityVm
from cimlayer.layer.standard import RECORD
from cimlayer.layer.writer import CimLayerWriter
from cimlayer.limits import DEFAULT_LIMITS, Limits
from cimlayer.oci.documents import WINDOWS, Image, ImageSource, LayerBlob, Platform
from cimlayer.oci.import_layer import finish_task, write_layer
from cimlayer.tasks import LayerTask
from cimlayer.tracing import span

_RECORD_LIMIT = 1 << 16
_PIECES_AHEAD = (32 << 20) // PIECE  # of the next layer's tar, ready when a layer has been committed


@dataclass(slots=True, frozen=True)
class ImportedLayer:
    """One layer of an imported image.

    ``chain_id`` names the layer with all below it, ``diff_id`` is its tar's digest, ``digest`` its blob's (None where
    the source has none). ``bytes`` is the sum of its files' sizes; ``seconds`` is 0 for a reused layer. ``utility_vm``
    is ``processed`` or ``kept``, None if the layer brought none or was reused.
    """

    path: Path
    chain_id: str
    diff_id: str
    digest: str | None
    reused: bool
    bytes: int
    seconds: float
    utility_vm: str | None = None


@dataclass(slots=True, frozen=True)
class ImportedImage:
    """An image whose layers are all there: ``layers`` from the base up, ``top`` is the last one's directory."""

    top: Path
    platform: str
    digest: str | None
    config_digest: str | None
    layers: tuple[ImportedLayer, ...]


class _LayerOptions(TypedDict):
    """How each layer is written."""

    sync: bool
    reproducible: bool
    utility_vm: UtilityVm
    scratch_disks: bool


@dataclass(slots=True, frozen=True)
class _Planned:
    """A layer, and where it goes."""

    blob: LayerBlob
    chain_id: Digest
    path: Path

    @property
    def record(self) -> dict[str, str]:
        return {"chain_id": str(self.chain_id), "diff_id": str(self.blob.diff_id)}


def import_image(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    platform: str | Platform | None = None,
    sync: bool = True,
    reproducible: bool = False,
    utility_vm: UtilityVm = "auto",
    scratch_disks: bool = True,
    jobs: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: ProgressCallback | None = None,
    cancel: CancellationToken | None = None,
) -> ImportedImage:
    """Import the layers of an image as a chain of CIM layers in ``directory``, which is made if it is missing.

    ``source`` is an OCI image layout, a docker-save archive or a folder of ``skopeo copy ... dir:``; folders and
    uncompressed tars will do. ``platform`` is ``OS/ARCHITECTURE/OS.VERSION``, from the left as far as it matters; by
    default the image for Windows is taken. A layer's directory has its chain ID's hex digits as name; one that is
    there already, made from the same layers, is used again. The other arguments are those of
    :func:`~cimlayer.import_layer`, and ``limits`` are those of each layer; while one layer is committed, the
    next one's tar is being decompressed.

    The digests of the manifest, the configuration and every blob and the diff ID of every layer are verified, the
    layers' while they are imported: no layer is committed before all of it has been verified. A failure leaves the
    layers below as they are, for the next attempt, and nothing of the layer that failed. Beside what
    :func:`~cimlayer.import_layer` raises: ValueError if no image, or more than one, is for the platform;
    FileNotFoundError for a blob that is not in the source, with its URLs if the manifest has any; FileExistsError if
    something else has the place of a layer.
    """
    cancel = cancel or CancellationToken()
    wanted = WINDOWS if platform is None else platform if isinstance(platform, Platform) else Platform.parse(platform)
    root = Path(os.path.abspath(directory))
    with span("import_image", source=os.fspath(source)):
        images = ImageSource(source, cancel)
        image = images.select(wanted)
        chain = chain_ids([layer.diff_id for layer in image.layers])
        plan = [_Planned(blob, id_, root / id_.hex) for blob, id_ in zip(image.layers, chain, strict=True)]
        done = _reused(plan, progress)
        _check_presence([layer.blob for layer in plan[len(done) :]], images.files.name)
        with _made(root, sync):
            options: _LayerOptions = {
                "sync": sync,
                "reproducible": reproducible,
                "utility_vm": utility_vm,
                "scratch_disks": scratch_disks,
            }
            done += _import(images, plan, len(done), options, jobs, limits, progress, cancel)
    return _result(image, done)


def _result(image: Image, layers: Sequence[ImportedLayer]) -> ImportedImage:
    return ImportedImage(
        layers[-1].path, str(image.platform), _text(image.digest), _text(image.config_digest), tuple(layers)
    )


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def _import(
    images: ImageSource,
    plan: Sequence[_Planned],
    first: int,
    options: _LayerOptions,
    jobs: int | None,
    limits: Limits,
    progress: ProgressCallback | None,
    cancel: CancellationToken,
) -> list[ImportedLayer]:
    """Import the layers of a plan from the ``first`` on."""
    reading = CancellationToken(cancel)
    streams = (_stream(images, layer.blob, limits, reading) for layer in plan[first:])
    imported = []
    with PieceReader(streams, reading, jobs, _PIECES_AHEAD) as reader:
        for at in range(first, len(plan)):
            layer = plan[at]
            parents = [below.path for below in reversed(plan[:at])]
            task = _task(plan, at, progress)
            with span("import_layer", layer=layer.path.name, digest=layer.blob.name), _layer_named(layer.blob):
                cancel.raise_if_cancelled()
                task.started()
                with CimLayerWriter(layer.path, parents, cancel=cancel, **options) as writer:
                    size = write_layer(reader.pieces(), writer, task, limits, cancel)
                    record = json.dumps({**layer.record, "bytes": size})
                    writer.standard.directory.write(RECORD, f"{record}\n".encode())
                finish_task(task, writer, size)
            imported.append(_imported(layer, False, size, task.seconds, writer.utility_vm))
    return imported


def _task(plan: Sequence[_Planned], at: int, progress: ProgressCallback | None) -> LayerTask:
    layer = plan[at]
    return LayerTask(layer.path.name, at + 1, len(plan), layer.blob.name, layer.blob.size, progress)


def _imported(layer: _Planned, reused: bool, size: int, seconds: float, utility_vm: str | None = None) -> ImportedLayer:
    blob = layer.blob
    return ImportedLayer(
        layer.path, str(layer.chain_id), str(blob.diff_id), _text(blob.digest), reused, size, seconds, utility_vm
    )


@contextlib.contextmanager
def _stream(images: ImageSource, blob: LayerBlob, limits: Limits, reading: CancellationToken) -> Iterator[LayerStream]:
    size = blob.size if blob.digest else None
    with images.files.open(blob.path) as file:
        yield LayerStream(file, digest=blob.digest, size=size, diff_id=blob.diff_id, limits=limits, cancel=reading)


@contextlib.contextmanager
def _layer_named(blob: LayerBlob) -> Iterator[None]:
    """What is wrong inside a layer says which layer it is."""
    try:
        yield
    except (DigestMismatchError, LimitError):
        raise  # they do already
    except FormatError as error:
        what = f"layer {blob.name}: {error.what}".removesuffix(": ")
        raise type(error)(error.reason, what, error.offset) from error


def _check_presence(blobs: Sequence[LayerBlob], source: str) -> None:
    for blob in blobs:
        if blob.size is None:
            where = f"; it is a foreign layer, to be had from {' or '.join(blob.urls)}" if blob.urls else ""
            raise FileNotFoundError(errno.ENOENT, f"the image does not hold the layer {blob.name}{where}", source)


# ---- layers that are there ----


def _reused(plan: Sequence[_Planned], progress: ProgressCallback | None) -> list[ImportedLayer]:
    """The layers of a plan, from the base up, that need not be made; FileExistsError if others are in the way."""
    reused = []
    parent: Path | None = None
    for at, layer in enumerate(plan):
        if not is_cim_layer(layer.path):
            break
        size = _recorded_size(layer, parent)
        _task(plan, at, progress).reused(size)
        reused.append(_imported(layer, True, size, 0.0))
        parent = layer.path
    for layer in plan[len(reused) :]:
        if is_cim_layer(layer.path):
            raise _in_the_way(layer, "a layer below it is missing, so it cannot be complete")
    return reused


def _recorded_size(layer: _Planned, parent: Path | None) -> int:
    """The size of the files of a layer that is there and is the one that is wanted."""
    try:
        with (layer.path / RECORD).open("rb") as file:
            record = json.loads(file.read(_RECORD_LIMIT))
        size = record.pop("bytes", None) if isinstance(record, dict) else None
        if record != layer.record or not isinstance(size, int):
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


def _in_the_way(layer: _Planned, why: str) -> FileExistsError:
    return FileExistsError(
        errno.EEXIST, f"a layer is there, but cannot be used again ({why}); destroy it first", str(layer.path)
    )


@contextlib.contextmanager
def _made(root: Path, sync: bool) -> Iterator[None]:
    """The directory of the layers; one that was made for an image that failed goes again, if nothing is in it."""
    existed = root.exists()
    root.mkdir(exist_ok=True)
    try:
        if sync and not existed:
            sync_directory(root.parent)
        yield
    except BaseException:
        if not existed:
            with contextlib.suppress(OSError):
                root.rmdir()
        raise
