"""Targets that are files: OCI image layouts, docker archives, and skopeo's ``dir:`` folders.

Sources of the forms: the OCI image specification 1.1 ("Image Layout"), moby's image/spec/v1.2.md ("Combined Image
JSON"), and skopeo's containers-transports(5).
"""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken
from cimlayer.oci.documents import Object, list_of
from cimlayer.oci.files import Folder
from cimlayer.oci.layouts import OciLayout, read_object
from cimlayer.oci.origins import Origin
from cimlayer.oci.sources import BlobDescriptor
from cimlayer.oci.targets import Compression, Document, LayerBlob, WrittenLayer

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_NAME = "org.opencontainers.image.ref.name"


class _Sink(Protocol):
    """Files of an image that is being written."""

    def layer(self, blob: LayerBlob, name: Callable[[WrittenLayer], str]) -> WrittenLayer:
        """Write a layer as a file whose name is known at its end."""

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file."""


class FolderSink:
    """A folder: a new one, an empty one, or one in which files may be added. ``abort`` removes what was written."""

    def __init__(self, root: Path, *, may_exist: bool) -> None:
        self.root = root
        self._made: list[Path] = []
        if root.is_dir() and not may_exist and any(root.iterdir()):
            raise FileExistsError(errno.EEXIST, "the folder is not empty", str(root))
        self._make(root)

    def layer(self, blob: LayerBlob, name: Callable[[WrittenLayer], str]) -> WrittenLayer:
        """Under a temporary name first."""
        with self._temporary() as (path, file):
            written = blob.write(file)
            file.close()
            self._place(path, self.root / name(written))
        return written

    def put(self, name: str, data: bytes) -> None:
        """Replaces a file of that name at once, or not at all."""
        with self._temporary() as (path, file):
            file.write(data)
            file.close()
            self._place(path, self.root / name, replace=True)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        path = self.root / f".cimlayer-{secrets.token_hex(8)}"
        try:
            with path.open("xb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def abort(self) -> None:
        """Remove the files and directories that were not there before."""
        for path in reversed(self._made):
            with contextlib.suppress(OSError):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()

    def _place(self, temporary: Path, path: Path, *, replace: bool = False) -> None:
        self._make(path.parent)
        existed = path.exists()
        if existed and not replace:
            return
        temporary.replace(path)
        if not existed:
            self._made.append(path)

    def _make(self, directory: Path) -> None:
        if directory.is_dir():
            return
        if directory != self.root:
            self._make(directory.parent)
        directory.mkdir()
        self._made.append(directory)


class TarSink:
    """A tar that is written once. A member's header follows its content: the size and the name are known then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("xb")
        self._names: set[str] = set()

    def layer(self, blob: LayerBlob, name: Callable[[WrittenLayer], str]) -> WrittenLayer:
        """The same layer twice is one member."""
        with self._member() as finish:
            written = blob.write(self._file)
            finish(name(written))
        return written

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        with self._member() as finish:
            self._file.write(data)
            finish(name)

    @contextlib.contextmanager
    def _member(self) -> Iterator[Callable[[str], None]]:
        start = self._file.tell()
        self._file.write(bytes(tarfile.BLOCKSIZE))

        def finish(name: str) -> None:
            end = self._file.tell()
            self._file.seek(start)
            if name in self._names:
                self._file.truncate()
                return
            self._names.add(name)
            info = tarfile.TarInfo(name)
            info.size = end - start - tarfile.BLOCKSIZE
            self._file.write(info.tobuf(tarfile.GNU_FORMAT))
            self._file.seek(end)
            self._file.write(bytes(-info.size % tarfile.BLOCKSIZE))

        yield finish

    def close(self) -> None:
        """End the tar."""
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))
        self._file.close()

    def abort(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def _blob_path(descriptor: BlobDescriptor) -> str:
    return f"blobs/{descriptor.digest.replace(':', '/')}"


def _hex(descriptor: BlobDescriptor) -> str:
    return descriptor.digest.partition(":")[2]


class OciTarget:
    """An OCI image layout; an image of the same name in it is replaced in the index."""

    compressions: tuple[Compression, ...] = ("gzip", "zstd", "none")

    def __init__(self, sink: _Sink, name: str | None, index: Object) -> None:
        self._sink = sink
        self._name = name
        self._index = index

    def layer(self, blob: LayerBlob, origin: Origin) -> WrittenLayer:
        """One file."""
        return self._sink.layer(blob, lambda written: _blob_path(written.blob))

    def finish(self, config: Document, manifest: Document) -> str:
        """The index comes last."""
        for descriptor, data in (config, manifest):
            self._sink.put(_blob_path(descriptor), data)
        of_manifest = manifest[0]
        entry: dict[str, Any] = {
            "mediaType": of_manifest.media_type,
            "digest": of_manifest.digest,
            "size": of_manifest.size,
        }
        kept = [each for each in self._index.get("manifests", []) if self._name is None or _name_of(each) != self._name]
        if self._name is not None:
            entry["annotations"] = {_NAME: self._name}
        self._sink.put("oci-layout", _LAYOUT)
        index = {"schemaVersion": 2, **self._index, "manifests": [*(each for each in kept if each != entry), entry]}
        self._sink.put("index.json", json.dumps(index).encode())
        return of_manifest.digest


def _name_of(entry: Any) -> object:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    return annotations.get(_NAME) if isinstance(annotations, dict) else None


class DirTarget:
    """A folder as ``skopeo copy ... dir:`` makes it."""

    compressions: tuple[Compression, ...] = ("gzip", "zstd", "none")

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink

    def layer(self, blob: LayerBlob, origin: Origin) -> WrittenLayer:
        """One file."""
        return self._sink.layer(blob, lambda written: _hex(written.blob))

    def finish(self, config: Document, manifest: Document) -> str:
        """Two documents, and the version of the form."""
        self._sink.put(_hex(config[0]), config[1])
        self._sink.put("version", b"Directory Transport Version: 1.1\n")
        self._sink.put("manifest.json", manifest[1])
        return manifest[0].digest


class DockerArchiveTarget:
    """An archive for ``docker load``, whose layers are not compressed."""

    compressions: tuple[Compression, ...] = ("none",)

    def __init__(self, sink: _Sink, tag: str | None) -> None:
        self._sink = sink
        self._tags = [] if tag is None else [tag if ":" in tag.rpartition("/")[2] else f"{tag}:latest"]
        self._layers: list[str] = []

    def layer(self, blob: LayerBlob, origin: Origin) -> WrittenLayer:
        """One file."""
        written = self._sink.layer(blob, lambda written: f"{_hex(written.blob)}.tar")
        self._layers.append(f"{_hex(written.blob)}.tar")
        return written

    def finish(self, config: Document, manifest: Document) -> str:
        """Docker has a manifest of its own; the configuration's digest is the image's ID."""
        name = f"{_hex(config[0])}.json"
        self._sink.put(name, config[1])
        entry = {"Config": name, "RepoTags": self._tags, "Layers": self._layers}
        self._sink.put("manifest.json", json.dumps([entry]).encode())
        return config[0].digest


FileTarget = OciTarget | DirTarget | DockerArchiveTarget


@contextlib.contextmanager
def opened_file_target(form: str, path: Path, name: str | None) -> Iterator[FileTarget]:
    """A target of a form; what was written goes again if the export fails."""
    if form in ("oci-archive", "docker-archive"):
        tar = TarSink(path)
        try:
            yield OciTarget(tar, name, {}) if form == "oci-archive" else DockerArchiveTarget(tar, name)
            tar.close()
        except BaseException:
            tar.abort()
            raise
        return
    index = _index_of(path) if form == "oci" and path.is_dir() and any(path.iterdir()) else {}
    folder = FolderSink(path, may_exist=form == "oci")
    try:
        yield OciTarget(folder, name, index) if form == "oci" else DirTarget(folder)
    except BaseException:
        folder.abort()
        raise


def _index_of(path: Path) -> Object:
    """The index of an OCI layout that is there; FormatError if the folder is none."""
    files = Folder(path, CancellationToken())
    try:
        OciLayout(files)
        index = read_object(files, "index.json")
    except FileNotFoundError as error:
        raise FormatError("the folder is neither empty nor an OCI image layout", str(path)) from error
    list_of(index, "manifests", "index.json")
    return index
