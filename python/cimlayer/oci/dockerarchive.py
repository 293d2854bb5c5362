"""Docker archives: ``docker save`` of old, and what builders write for ``docker load``.

The form is that of Docker's "Image Specification v1.2" ("Combined Image JSON + Filesystem Changeset Format").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from cimlayer.blobs.arrival import PIECE
from cimlayer.blobs.decompression import is_compressed
from cimlayer.blobs.digests import Digest
from cimlayer.errors import FormatError
from cimlayer.oci.documents import (
    DOCKER_ARCHIVE_MANIFEST,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCUMENT_LIMIT,
    SHOWN,
    Object,
    check_paired,
    checked,
    diff_ids_of,
    list_of,
    parse,
    texts_of,
)
from cimlayer.oci.files import Files
from cimlayer.oci.layouts import not_there, read_file
from cimlayer.oci.sources import BlobDescriptor, ImageReference

_DIGEST_NAME = re.compile(r"(?:blobs/sha256/|sha256:)?([0-9a-f]{64})(?:\.json|\.tar\.gz|\.tar\.zst)?")


class DockerArchive:
    """A ``manifest.json`` that lists configurations and layer tars by path.

    Such an image has no manifest. One is made of each entry, so that what reads container images needs to know
    nothing of this form.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        document = checked(parse(read_file(files, "manifest.json"), "manifest.json"), list, "manifest.json")
        self._entries = [checked(entry, dict, "manifest.json") for entry in document]
        self._manifests: dict[str, Object | Exception] = {}  # digest -> the entry, or what is wrong with it
        self._paths: dict[str, str] = {}  # digest -> where the blob is
        self._compressed: dict[str, str | None] = {}  # path of a layer -> its digest if it is compressed

    @property
    def name(self) -> str:
        """The path of the folder or archive."""
        return self.files.name

    def references(self) -> Iterator[ImageReference]:
        """The entries; one that cannot be used raises its error when its document is asked for."""
        for entry in self._entries:
            names: tuple[str, ...] = ()
            made: Object | Exception = entry
            try:
                names = texts_of(entry, "RepoTags", "manifest.json")
                data = self._manifest(entry)
            except (FileNotFoundError, FormatError) as error:
                data, made = json.dumps(entry).encode(), error.with_traceback(None)
            digest = str(Digest.of("sha256", data))
            self._manifests[digest] = made
            yield ImageReference(names, BlobDescriptor(digest, media_type=DOCKER_ARCHIVE_MANIFEST))

    def document(self, descriptor: BlobDescriptor, limit: int) -> bytes:
        """The manifest that is made of an entry, or a configuration."""
        entry = self._manifests.get(descriptor.digest)
        if isinstance(entry, Exception):
            raise entry
        if entry is not None:
            return self._manifest(entry)
        return read_file(self.files, self._path(descriptor), limit)

    def blob_size(self, descriptor: BlobDescriptor) -> int | None:
        """The size of the layer's file."""
        path = self._paths.get(descriptor.digest)
        return None if path is None else self.files.size(path)

    def open_blob(self, descriptor: BlobDescriptor, offset: int = 0) -> BinaryIO:
        """The layer's file from a byte on."""
        return self.files.open(self._path(descriptor), offset)

    def _path(self, descriptor: BlobDescriptor) -> str:
        if descriptor.digest not in self._paths:
            raise not_there(self.files, f"blob {descriptor.digest}")
        return self._paths[descriptor.digest]

    def _manifest(self, entry: Object) -> bytes:
        """An entry as a manifest. It is made anew each time: there may be many, and one is needed again."""
        path = checked(entry.get("Config"), str, "manifest.json: Config")
        data = read_file(self.files, path, DOCUMENT_LIMIT)
        digest = _digest_of_name(path) or str(Digest.of("sha256", data))
        config = checked(parse(data, path), dict, path)
        diff_ids = diff_ids_of(config, f"configuration {path[:SHOWN]}")
        paths = [checked(each, str, "manifest.json: Layers") for each in list_of(entry, "Layers", "manifest.json")]
        check_paired(paths, diff_ids, "manifest.json")
        self._paths[digest] = path
        sources = checked(entry.get("LayerSources") or {}, dict, "manifest.json: LayerSources")
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": DOCKER_ARCHIVE_MANIFEST,
                "config": {"mediaType": DOCKER_CONFIG, "digest": digest, "size": len(data)},
                "layers": [
                    self._layer(path, str(diff_id), sources.get(str(diff_id)))
                    for path, diff_id in zip(paths, diff_ids, strict=True)
                ],
            }
        ).encode()

    def _layer(self, path: str, diff_id: str, origin: Any) -> Object:
        """A layer's descriptor; ``origin`` is what Docker notes of one that was not saved with the others."""
        size = self.files.size(path)
        if size is None:
            noted = checked(origin or {}, dict, "manifest.json: LayerSources")
            return {"mediaType": DOCKER_LAYER, "digest": diff_id, "size": 0, **noted}
        if path not in self._compressed:
            self._compressed[path] = self._digest_if_compressed(path)
        digest = self._compressed[path] or diff_id  # a tar that is not compressed is what the diff ID is of
        self._paths[digest] = path
        return {"mediaType": DOCKER_LAYER, "digest": digest, "size": size}

    def _digest_if_compressed(self, path: str) -> str | None:
        with self.files.open(path) as file:
            if not is_compressed(file.read(4)):
                return None
        named = _digest_of_name(path)
        if named is not None:
            return named
        whole = Digest("sha256", "").new_hash()
        with self.files.open(path) as file:
            while piece := file.read(PIECE):
                self.files.cancel.raise_if_cancelled()
                whole.update(piece)
        return f"sha256:{whole.hexdigest()}"


def _digest_of_name(path: str) -> str | None:
    """The digest in a name such as ``blobs/sha256/HEX``, ``HEX.json`` or crane's ``sha256:HEX``."""
    match = _DIGEST_NAME.fullmatch(path.lstrip("/"))
    return f"sha256:{match[1]}" if match else None
