"""OCI layouts of many images that share layers, for benchmarks."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isal import igzip

from examples.layer_tar import LayerTar

OCI = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer's blob, as manifests name it, and the digest of its tar."""

    descriptor: dict[str, Any]
    diff_id: str

    @property
    def digest(self) -> str:
        return str(self.descriptor["digest"])


def small_layer(content: bytes, *, hives: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """A tar with one file beside the hives."""
    with io.BytesIO() as out:
        with LayerTar(out) as layer:
            for name, data in hives:
                layer.file(name, data, b"")
            layer.file(f"Files/{hashlib.sha256(content).hexdigest()[:12]}.txt", content, b"")
        return out.getvalue()


class Layout:
    """Layouts that share their blobs, one for each image."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)

    def add_layer(self, tar: bytes) -> StoredLayer:
        blob = igzip.compress(tar, 1)
        return StoredLayer(self._put(blob, f"{OCI}.layer.v1.tar+gzip"), f"sha256:{hashlib.sha256(tar).hexdigest()}")

    def add_plain_layer(self, tar: Path) -> StoredLayer:
        """One that is not compressed; the blob is one more name of the file."""
        whole = hashlib.sha256()
        with tar.open("rb") as file:
            while piece := file.read(1 << 20):
                whole.update(piece)
        (self._blobs / whole.hexdigest()).hardlink_to(tar)
        digest = f"sha256:{whole.hexdigest()}"
        return StoredLayer({"mediaType": f"{OCI}.layer.v1.tar", "digest": digest, "size": tar.stat().st_size}, digest)

    def add_image(self, name: str, layers: Sequence[StoredLayer]) -> str:
        """What import-image takes for it."""
        diff_ids = [layer.diff_id for layer in layers]
        config = {"os": "windows", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        manifest = {
            "schemaVersion": 2,
            "config": self._put(json.dumps(config).encode(), f"{OCI}.config.v1+json"),
            "layers": [layer.descriptor for layer in layers],
        }
        top = self._put(json.dumps(manifest).encode(), f"{OCI}.manifest.v1+json")
        image = self._root / name
        image.mkdir()
        (image / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")
        (image / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}), encoding="utf-8")
        (image / "blobs").symlink_to(self._root / "blobs")
        return str(image)

    def _put(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self._blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
