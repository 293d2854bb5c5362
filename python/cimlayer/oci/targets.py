"""Where a container image goes: the protocol that every kind of target fills, and the blobs that it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, cast

from cimlayer.blobs.compression import Compressor, GzipCompressor, ZstdCompressor
from cimlayer.blobs.digests import Digest
from cimlayer.blobs.outputs import Output
from cimlayer.blobs.writebehind import WriteBehind
from cimlayer.events import CancellationToken, ProgressCallback
from cimlayer.limits import Limits
from cimlayer.oci.export_layer import export_layer
from cimlayer.oci.origins import Origin
from cimlayer.oci.sources import BlobDescriptor

Compression = Literal["gzip", "zstd", "none"]

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MEDIA_TYPES: dict[Compression, str] = {"gzip": f"{_LAYER}+gzip", "zstd": f"{_LAYER}+zstd", "none": _LAYER}


def ordinary_type(media_type: str) -> str:
    """The OCI media type of a layer's blob that had a type of Docker's, or a foreign one."""
    compression = next((each for each in ("gzip", "zstd") if media_type.endswith(each)), "none")
    return _MEDIA_TYPES[cast(Compression, compression)]


@dataclass(slots=True, frozen=True)
class WrittenLayer:
    """A layer's blob, and the digest of the tar in it."""

    diff_id: str
    blob: BlobDescriptor


class LayerBlob:
    """A layer as a blob that can be written again and again: each time the same bytes, and none are kept."""

    def __init__(
        self,
        layer: Path,
        parents: Sequence[Path],
        compression: Compression,
        limits: Limits,
        progress: ProgressCallback | None,
        cancel: CancellationToken,
    ) -> None:
        self.layer = layer
        self._parents = parents
        self._compression: Compression = compression
        self._limits = limits
        self._progress = progress
        self._cancel = cancel

    def write(self, output: Output) -> WrittenLayer:
        """Export the layer, compress and hash it."""
        blob = _HashingOutput(output)
        if self._compression == "none":
            tar = blob
            self._export(tar)
        else:
            with GzipCompressor() if self._compression == "gzip" else ZstdCompressor() as compressor:
                tar = _HashingOutput(_Compressed(compressor, blob))
                self._export(tar)
                blob.write(compressor.flush())
        media_type = _MEDIA_TYPES[self._compression]
        return WrittenLayer(tar.digest, BlobDescriptor(blob.digest, blob.size, media_type))

    def _export(self, tar: _HashingOutput) -> None:
        with WriteBehind(tar) as output:
            export_layer(
                self.layer,
                self._parents,
                cast(BinaryIO, output),
                limits=self._limits,
                progress=self._progress,
                cancel=self._cancel,
            )


class _HashingOutput:
    """Counts and hashes what it hands on."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.size = 0
        self._hash = Digest("sha256", "").new_hash()

    def write(self, data: Any, /) -> None:
        self.size += len(data)
        self._hash.update(data)
        self._output.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


@dataclass(slots=True)
class _Compressed:
    """Compresses what it hands on."""

    compressor: Compressor
    output: Output

    def write(self, data: Any, /) -> None:
        if compressed := self.compressor.compress(data):
            self.output.write(compressed)


Document = tuple[BlobDescriptor, bytes]


class ImageTarget(Protocol):
    """Where an image goes. The layers come first, from the base up, then the configuration, then the manifest."""

    compressions: tuple[Compression, ...]  # those that it can have, the default first

    def layer(self, blob: LayerBlob, origin: Origin) -> WrittenLayer:
        """Write a layer, unless it is there. Where it is there as it was imported, that blob is taken."""

    def finish(self, config: Document, manifest: Document) -> str:
        """Write the documents; what was written before becomes an image. Returns the digest that names it there."""
