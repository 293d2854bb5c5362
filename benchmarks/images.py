"""A container image out of a layer's tar, and a container registry on the loopback interface that serves it.

`python -m benchmarks.images TAR DIRECTORY` makes an OCI image layout with one image, named 1: the tar's entries in six
layers of about the same size, each compressed as `gzip -6` does it.
"""

import argparse
import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

LAYERS = 6
REGISTRY = "127.0.0.1:5998"
_TYPE = "application/vnd.oci.image"
_PIECE = 1 << 20


class _Blob:
    """A layer's tar on its way into a file: hashed, compressed and hashed again."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._compressor = zlib.compressobj(6, wbits=31)
        self.tar, self.blob = hashlib.sha256(), hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.tar.update(data)
        self._put(self._compressor.compress(data))
        return len(data)

    def _put(self, data: bytes) -> None:
        self.blob.update(data)
        self._file.write(data)

    def close(self) -> None:
        self._put(self._compressor.flush())
        self._file.close()


def make(tar: Path, layout: Path) -> None:
    """The image layout."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    most = tar.stat().st_size // LAYERS + 1
    layers, diff_ids = [], []
    with tarfile.open(tar, bufsize=_PIECE) as source:
        member = source.next()
        for number in range(1, LAYERS + 1):
            blob = _Blob(layout / "partial")
            with tarfile.open(fileobj=blob, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE) as out:  # type: ignore[call-overload]
                while member is not None and member.offset < number * most:
                    out.addfile(member, source.extractfile(member) if member.isfile() else None)
                    out.members, source.members = [], []  # or each keeps all it has seen
                    member = source.next()
            blob.close()
            layers.append(_placed(layout / "partial", blobs, blob.blob.hexdigest(), f"{_TYPE}.layer.v1.tar+gzip"))
            diff_ids.append(f"sha256:{blob.tar.hexdigest()}")
    config = {"os": "windows", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {"schemaVersion": 2, "mediaType": f"{_TYPE}.manifest.v1+json", "layers": layers}
    manifest["config"] = _document(config, blobs, f"{_TYPE}.config.v1+json")
    entry = _document(manifest, blobs, f"{_TYPE}.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}), encoding="utf-8")
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")


def _placed(path: Path, blobs: Path, digest: str, media_type: str) -> dict[str, object]:
    path = path.rename(blobs / digest)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": path.stat().st_size}


def _document(document: dict[str, object], blobs: Path, media_type: str) -> dict[str, object]:
    data = json.dumps(document).encode()
    (blobs / "document").write_bytes(data)
    return _placed(blobs / "document", blobs, hashlib.sha256(data).hexdigest(), media_type)


@contextlib.contextmanager
def served(directory: Path) -> Iterator[None]:
    """A container registry (docker-registry) with its data in a directory, until the end of the block."""
    program = shutil.which("docker-registry")
    if program is None:
        raise FileNotFoundError("docker-registry is not installed")
    storage = {"filesystem": {"rootdirectory": str(directory / "registry")}}
    config = {"version": 0.1, "log": {"level": "error"}, "http": {"addr": REGISTRY}, "storage": storage}
    (directory / "config.yml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    command = [program, "serve", str(directory / "config.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            host, _, port = REGISTRY.partition(":")
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise RuntimeError(f"docker-registry ended with {process.wait(0.05)}")
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make an image of a layer's tar.")
    parser.add_argument("tar", type=Path)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    make(options.tar, options.directory)


if __name__ == "__main__":
    main()
