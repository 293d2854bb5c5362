"""Imports a container image that a program keeps in memory: `python -m examples.image_from_memory DIR`, from the root.

`MemorySource` has the members of `cimlayer.ImageSource`. A program with a store of its own, such as a database or an
object storage, has the same five, and reads from there.
"""

import gzip
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cimlayer

HERE = Path(__file__).parent
OCI = "application/vnd.oci.image"


class MemorySource:
    """Blobs by digest, and a manifest for each name."""

    name = "memory"

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[str, str] = {}

    def put(self, data: bytes, media_type: str) -> dict[str, object]:
        """Keep a blob; returns its descriptor as documents have it."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def tag(self, name: str, manifest: dict[str, object]) -> None:
        """Give a manifest, or an index of manifests, a name."""
        self._manifests[name] = str(self.put(json.dumps(manifest).encode(), f"{OCI}.manifest.v1+json")["digest"])

    def references(self) -> Iterator[cimlayer.ImageReference]:
        for name, digest in self._manifests.items():
            yield cimlayer.ImageReference((name,), cimlayer.BlobDescriptor(digest))

    def document(self, descriptor: cimlayer.BlobDescriptor, limit: int) -> bytes:
        return self.open_blob(descriptor).read(limit + 1)

    def blob_size(self, descriptor: cimlayer.BlobDescriptor) -> int | None:
        blob = self._blobs.get(descriptor.digest)
        return None if blob is None else len(blob)

    def open_blob(self, descriptor: cimlayer.BlobDescriptor, offset: int = 0) -> BinaryIO:
        if descriptor.digest not in self._blobs:
            raise FileNotFoundError(f"{self.name}: no blob {descriptor.digest}")
        stream = io.BytesIO(self._blobs[descriptor.digest])
        stream.seek(offset)
        return stream


def sample_source() -> MemorySource:
    """The two sample layers as one container image."""
    source = MemorySource()
    tars = [(HERE / f"sample-{name}.tar").read_bytes() for name in ("layer", "child")]
    config = {
        "os": "windows",
        "architecture": "amd64",
        "os.version": "10.0.20348.1",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": source.put(json.dumps(config).encode(), f"{OCI}.config.v1+json"),
        "layers": [source.put(gzip.compress(tar, mtime=0), f"{OCI}.layer.v1.tar+gzip") for tar in tars],
    }
    source.tag("sample:1", manifest)
    return source


def main(directory: str) -> None:
    source: cimlayer.ImageSource = sample_source()
    image = cimlayer.import_image(source, directory, reference="sample:1")
    for layer in image.layers:
        print(layer.path)


if __name__ == "__main__":
    main(sys.argv[1])
