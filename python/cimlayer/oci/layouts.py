"""Sources whose files are named by digests: OCI image layouts, and skopeo's ``dir:`` folders.

Sources of the forms: the OCI image specification 1.1 ("Image Layout") and skopeo's containers-transports(5).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import BinaryIO

from cimlayer.blobs.digests import Digest
from cimlayer.errors import FormatError
from cimlayer.oci.documents import (
    DOCUMENT_LIMIT,
    INDEXES,
    MANIFESTS,
    SHOWN,
    Object,
    check_length,
    checked,
    descriptor_of,
    is_index,
    list_of,
    parse,
)
from cimlayer.oci.files import Files
from cimlayer.oci.sources import BlobDescriptor, ImageReference

_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


def read_file(files: Files, path: str, limit: int = DOCUMENT_LIMIT) -> bytes:
    """A whole file; FileNotFoundError if it is not there, FormatError if it is too large for a document."""
    files.cancel.raise_if_cancelled()
    size = files.size(path)
    if size is None:
        raise not_there(files, path[:SHOWN])
    check_length(size, path, limit)
    with files.open(path) as file:
        data = b""
        while piece := file.read(limit + 1 - len(data)):
            data += piece
    return data


def read_object(files: Files, path: str) -> Object:
    """A file that is a JSON object."""
    return checked(parse(read_file(files, path), path), dict, path)


def not_there(files: Files, what: str) -> FileNotFoundError:
    """What of a container image is not in its source."""
    return FileNotFoundError(errno.ENOENT, f"the source does not contain {what}", files.name)


class OciLayout:
    """An OCI image layout; ``docker save`` of today makes one too."""

    def __init__(self, files: Files) -> None:
        self.files = files
        version = read_object(files, "oci-layout").get("imageLayoutVersion")
        if version != "1.0.0":
            raise FormatError(f"version {str(version)[:SHOWN]!r}, not 1.0.0", "oci-layout")

    @property
    def name(self) -> str:
        """The path of the folder or archive."""
        return self.files.name

    def references(self) -> Iterator[ImageReference]:
        """The entries of ``index.json``, by the names that containerd and the OCI specification annotate."""
        for number, value in enumerate(list_of(read_object(self.files, "index.json"), "manifests", "index.json"), 1):
            what = f"index.json: entry {number}"
            descriptor = descriptor_of(value, what)
            annotations = checked(value.get("annotations") or {}, dict, f"{what}: annotations")
            names = (annotations.get(key) for key in _NAMES)
            yield ImageReference(tuple(dict.fromkeys(name for name in names if isinstance(name, str))), descriptor)

    def document(self, descriptor: BlobDescriptor, limit: int) -> bytes:
        """The blob of a document."""
        path = self._path(descriptor)
        if self.files.size(path) is None:
            raise not_there(self.files, f"blob {descriptor.digest}")
        return read_file(self.files, path, limit)

    def blob_size(self, descriptor: BlobDescriptor) -> int | None:
        """The size of the file."""
        return self.files.size(self._path(descriptor))

    def open_blob(self, descriptor: BlobDescriptor, offset: int = 0) -> BinaryIO:
        """The file from a byte on."""
        return self.files.open(self._path(descriptor), offset)

    def _path(self, descriptor: BlobDescriptor) -> str:
        return f"blobs/{descriptor.digest.replace(':', '/')}"


class SkopeoFolder:
    """What ``skopeo copy ... dir:`` makes; with ``--all`` its manifest is an index."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._suffix = ""  # of blobs
        if files.size("version") is not None:
            line = read_file(files, "version").decode("utf-8", "replace").strip()
            version = line.removeprefix("Directory Transport Version: ")
            if version not in ("1.0", "1.1"):
                raise FormatError(f"a dir: folder of version {version[:SHOWN]}, neither 1.0 nor 1.1", files.name)
            self._suffix = ".tar" if version == "1.0" else ""
        data = read_file(files, "manifest.json")
        document = checked(parse(data, "manifest.json"), dict, "manifest.json")
        if document.get("schemaVersion") != 2:
            raise FormatError("a manifest of schema 1, which nothing can verify", "manifest.json")
        is_index(document, "", "manifest.json")
        self._top = str(Digest.of("sha256", data))

    @property
    def name(self) -> str:
        """The path of the folder or archive."""
        return self.files.name

    def references(self) -> Iterator[ImageReference]:
        """The one manifest or index."""
        yield ImageReference((), BlobDescriptor(self._top))

    def document(self, descriptor: BlobDescriptor, limit: int) -> bytes:
        """``manifest.json``, another manifest, or a configuration."""
        name = self._path(descriptor)
        manifest = f"{descriptor.digest.partition(':')[2]}.manifest.json"
        if descriptor.digest == self._top:
            name = "manifest.json"
        elif descriptor.media_type in INDEXES | MANIFESTS or self.files.size(manifest) is not None:
            name = manifest
        if self.files.size(name) is None:
            raise not_there(self.files, f"blob {descriptor.digest}")
        return read_file(self.files, name, limit)

    def blob_size(self, descriptor: BlobDescriptor) -> int | None:
        """The size of the file."""
        return self.files.size(self._path(descriptor))

    def open_blob(self, descriptor: BlobDescriptor, offset: int = 0) -> BinaryIO:
        """The file from a byte on."""
        return self.files.open(self._path(descriptor), offset)

    def _path(self, descriptor: BlobDescriptor) -> str:
        return descriptor.digest.partition(":")[2] + self._suffix
