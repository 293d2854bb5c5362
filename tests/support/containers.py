"""Container images for tests: their documents and blobs, laid out in every form that tools write."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cimfs_ext.regf import Hive
from support.tars import TarBuilder

HIVES = ("SYSTEM", "SOFTWARE", "SAM", "SECURITY", "DEFAULT")
HIVE = Hive.empty(0).to_bytes()

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"

Object = dict[str, Any]


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def base_tar(**files: bytes) -> bytes:
    """A base layer with five empty hives and some files directly below Files."""
    builder = TarBuilder()
    for name in HIVES:
        builder.file(f"Files/Windows/System32/config/{name}", HIVE)
    return with_files(builder, files)


def child_tar(**files: bytes) -> bytes:
    return with_files(TarBuilder(), files)


def with_files(builder: TarBuilder, files: Mapping[str, bytes]) -> bytes:
    for name, data in files.items():
        builder.file(f"Files/{name}", data)
    return builder.finish()


@dataclass
class Layer:
    """A layer's tar, and the blob that an image has of it."""

    tar: bytes
    blob: bytes
    media_type: str
    algorithm: str = "sha256"
    urls: tuple[str, ...] = ()
    absent: bool = False

    @property
    def diff_id(self) -> str:
        return digest_of(self.tar)

    @property
    def digest(self) -> str:
        return digest_of(self.blob, self.algorithm)


def gzipped(tar: bytes, media_type: str = f"{OCI_LAYER}+gzip", **more: Any) -> Layer:
    return Layer(tar, gzip.compress(tar, 1, mtime=0), media_type, **more)


def plain(tar: bytes, media_type: str = OCI_LAYER, **more: Any) -> Layer:
    return Layer(tar, tar, media_type, **more)


def chain_ids(layers: Sequence[Layer]) -> list[str]:
    chain: list[str] = []
    for layer in layers:
        chain.append(digest_of(f"{chain[-1]} {layer.diff_id}".encode()) if chain else layer.diff_id)
    return chain


@dataclass
class Store:
    """Blobs by digest."""

    blobs: dict[str, bytes] = field(default_factory=dict)

    def put(self, data: bytes | Object, media_type: str, algorithm: str = "sha256", **more: Any) -> Object:
        """Keep a blob; returns its descriptor."""
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        digest = digest_of(raw, algorithm)
        self.blobs[digest] = raw
        return {"mediaType": media_type, "digest": digest, "size": len(raw), **more}

    def image(
        self,
        layers: Sequence[Layer],
        *,
        docker: bool = False,
        platform: Object | None = None,
        config: Object | None = None,
        manifest: Object | None = None,
        **more: Any,
    ) -> Object:
        """Keep an image; returns its manifest's descriptor. ``config`` and ``manifest`` replace fields."""
        platform = platform or {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"}
        document = {**platform, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}}
        entries = []
        for layer in layers:
            entry = self.put(layer.blob, layer.media_type, layer.algorithm)
            if layer.urls:
                entry["urls"] = list(layer.urls)
            if layer.absent:
                del self.blobs[layer.digest]
            entries.append(entry)
        media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        whole = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self.put(document | (config or {}), DOCKER_CONFIG if docker else OCI_CONFIG),
            "layers": entries,
        }
        return self.put(whole | (manifest or {}), media_type, **more)

    def index(self, entries: Sequence[Object], *, docker: bool = False, **more: Any) -> Object:
        """Keep an index of manifests; returns its descriptor."""
        media_type = DOCKER_INDEX if docker else OCI_INDEX
        document = {"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)}
        return self.put(document, media_type, **more)

    def layout(self, root: Path, entries: Sequence[Object]) -> Path:
        """An OCI image layout."""
        index = {"schemaVersion": 2, "manifests": list(entries)}
        files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
        files |= {f"blobs/{digest.replace(':', '/')}": data for digest, data in self.blobs.items()}
        return write(root, files)

    def skopeo(self, root: Path, top: Object) -> Path:
        """What ``skopeo copy --all ... dir:`` makes."""
        files = {"version": b"Directory Transport Version: 1.1\n"}
        for digest, data in self.blobs.items():
            name = digest.partition(":")[2]
            if digest == top["digest"]:
                files["manifest.json"] = data
            elif data.startswith(b"{") and b"schemaVersion" in data:
                files[f"{name}.manifest.json"] = data
            else:
                files[name] = data
        return write(root, files)


def docker_files(layers: Sequence[Layer], *, os: str = "windows", tags: Sequence[str] = ("a:1",)) -> dict[str, bytes]:
    """The files of a docker-save archive of the old form, with one image."""
    config = json.dumps(
        {"os": os, "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [x.diff_id for x in layers]}}
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    paths = [f"{hashlib.md5(layer.tar).hexdigest() * 2}/layer.tar" for layer in layers]
    manifest = [{"Config": name, "RepoTags": list(tags), "Layers": paths}]
    files = {path: layer.tar for path, layer in zip(paths, layers, strict=True)}
    return {**files, name: config, "manifest.json": json.dumps(manifest).encode()}


def write(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def packed(folder: Path, path: Path, format: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of a folder."""
    with tarfile.open(path, "w", format=format) as tar:
        tar.add(folder, ".")
    return path


def tar_of(files: Mapping[str, bytes | str], path: Path) -> Path:
    """A tar of files; a text is what a symbolic link leads to."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, str):
                member.type, member.linkname = tarfile.SYMTYPE, data
                tar.addfile(member)
            else:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path
