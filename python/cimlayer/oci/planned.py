"""A layer of a container image that is to be imported, and how that is done."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from cimlayer.blobs.digests import Digest, chain_ids
from cimlayer.blobs.readahead import Piece
from cimlayer.blobs.streams import LayerStream
from cimlayer.errors import DigestMismatchError, FormatError, ImageError, KeyNotFoundError
from cimlayer.events import CancellationToken
from cimlayer.host.interrupts import interruptible
from cimlayer.layer.processing import UtilityVm
from cimlayer.layer.standard import RECORD
from cimlayer.layer.writer import CimLayerWriter
from cimlayer.limits import Limits
from cimlayer.oci.import_layer import finish_task, write_layer
from cimlayer.oci.imported import ImportedLayer
from cimlayer.oci.origins import origin_records
from cimlayer.oci.selection import ContainerImage, Layer
from cimlayer.oci.sources import ImageSource
from cimlayer.tasks import LayerTask
from cimlayer.tracing import span


@dataclass(slots=True, frozen=True)
class PlannedLayer:
    """A layer, and where it goes. ``options`` are those that change bytes and are not the defaults."""

    layer: Layer
    chain_id: Digest
    path: Path
    origin: dict[str, object]
    options: dict[str, object] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What messages and events call the layer."""
        return self.layer.blob.digest

    @property
    def identity(self) -> dict[str, str]:
        """What the record of the same layer has."""
        return {"chain_id": str(self.chain_id), "diff_id": str(self.layer.diff_id)}

    def record(self, size: int) -> bytes:
        """What is kept beside the layer; ``size`` is the sum of its files' sizes."""
        options = {"options": self.options} if self.options else {}
        return f"{json.dumps({**self.identity, 'bytes': size, **options, 'origin': self.origin})}\n".encode()

    def imported(
        self, size: int, seconds: float = 0.0, utility_vm: str | None = None, *, reused: bool
    ) -> ImportedLayer:
        """The result, if it has its place."""
        chain_id, diff_id = str(self.chain_id), str(self.layer.diff_id)
        return ImportedLayer(self.path, chain_id, diff_id, self.digest, reused, size, seconds, utility_vm)


class WriterOptions(TypedDict):
    """How each layer is written."""

    sync: bool
    reproducible: bool
    utility_vm: UtilityVm
    scratch_disks: bool
    lock_timeout: float
    cancel: CancellationToken


def plan_layers(
    source: str, image: ContainerImage, place: Callable[[Digest], Path], options: dict[str, object] | None = None
) -> list[PlannedLayer]:
    """The layers of an image, base first; ``source`` names its source, ``place`` says where a chain ID's layer goes."""
    chain = chain_ids([layer.diff_id for layer in image.layers])
    origins = origin_records(source, image.platform, [layer.blob for layer in image.layers], image.config)
    return [
        PlannedLayer(layer, id_, place(id_), origin, options or {})
        for layer, id_, origin in zip(image.layers, chain, origins, strict=True)
    ]


def check_presence(source: ImageSource, layers: Iterable[PlannedLayer]) -> None:
    """FileNotFoundError for a layer whose blob the source does not have."""
    for each in layers:
        blob = each.layer.blob
        if source.blob_size(blob) is None:
            where = f" (a foreign layer, available from {' or '.join(blob.urls)})" if blob.urls else ""
            reason = f"the source does not contain layer {blob.digest}{where}"
            raise FileNotFoundError(errno.ENOENT, reason, source.name)


@contextlib.contextmanager
def layer_stream(
    source: ImageSource, layer: Layer, limits: Limits, reading: CancellationToken
) -> Iterator[LayerStream]:
    """The tar of a layer; ``reading`` stops it."""
    blob = layer.blob
    digest = Digest.parse(blob.digest, "digest of a layer")
    with contextlib.ExitStack() as stack:
        with interruptible():
            file = stack.enter_context(source.open_blob(blob))
        yield LayerStream(file, digest=digest, size=blob.size, diff_id=layer.diff_id, limits=limits, cancel=reading)


def write_planned(
    layer: PlannedLayer,
    parents: Sequence[Path],
    pieces: Iterator[Piece],
    task: LayerTask,
    limits: Limits,
    options: WriterOptions,
) -> ImportedLayer:
    """Import one layer from the pieces of its tar."""
    cancel = options["cancel"]
    with span("import_layer", layer=layer.path.name, digest=layer.digest), _layer_named(layer.digest):
        cancel.raise_if_cancelled()
        task.started()
        with CimLayerWriter(layer.path, parents, **options) as writer:
            size = write_layer(pieces, writer, task, limits, cancel)
            writer.standard.directory.write(RECORD, layer.record(size))
        finish_task(task, writer, size)
    return layer.imported(size, task.seconds, writer.utility_vm, reused=False)


@contextlib.contextmanager
def _layer_named(digest: str) -> Iterator[None]:
    """What is wrong inside a layer says which layer it is."""
    try:
        yield
    except DigestMismatchError:
        raise  # it does already
    except (FormatError, ImageError, KeyNotFoundError) as error:
        error.layer = digest
        raise
