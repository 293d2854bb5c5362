"""The JSON documents of container images: verified, and each field checked before it is believed.

Sources of the forms: the OCI image specification 1.1 ("Image Index", "Image Manifest", "Image Configuration", "Content
Descriptors") and Docker's "Image Manifest V 2, Schema 2".
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from cimlayer.blobs.digests import Digest
from cimlayer.errors import DigestMismatchError, FormatError
from cimlayer.oci.platforms import Platform
from cimlayer.oci.sources import BlobDescriptor, ImageSource

DOCUMENT_LIMIT = 8 << 20  # bytes of a manifest, an index or a configuration; container registries take 4 MiB
MOST_LAYERS = 1024
SHOWN = 100  # characters of untrusted text in a message

INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_ARCHIVE_MANIFEST = "application/vnd.cimlayer.docker-archive.manifest.v1+json"  # one that was made here
MANIFESTS = {"application/vnd.oci.image.manifest.v1+json", DOCKER_MANIFEST, DOCKER_ARCHIVE_MANIFEST}
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
CONFIGS = {
    "application/vnd.oci.image.config.v1+json",
    DOCKER_CONFIG,
    # Docker 1.10 and some container registries called it so; moby takes them all (distribution/registry.go).
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
}
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_LAYER = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.(?P<foreign_oci>nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.(?P<foreign_docker>foreign\.)?diff\.tar(?:\.gzip|\.zstd)?)"
)

Object = dict[str, Any]
_T = TypeVar("_T")


def parse(data: bytes, what: str) -> Any:
    """Any JSON value; ``what`` names the document in errors."""
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise FormatError(f"not JSON: {error.msg}", what, error.pos) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}", what) from error


def read_verified(source: ImageSource, descriptor: BlobDescriptor) -> Object:
    """A JSON object that has a digest."""
    name = f"blob {descriptor.digest}"
    data = source.document(descriptor, DOCUMENT_LIMIT)
    check_length(len(data), name)
    if descriptor.size is not None and len(data) != descriptor.size:
        raise DigestMismatchError(name, f"{descriptor.size} bytes", f"{len(data)} bytes", len(data))
    digest = Digest.parse(descriptor.digest, name)
    actual = Digest.of(digest.algorithm, data)
    if actual != digest:
        raise DigestMismatchError(name, f"digest {digest}", f"digest {actual}", len(data))
    return checked(parse(data, name), dict, name)


def check_length(size: int, what: str, limit: int = DOCUMENT_LIMIT) -> None:
    """FormatError for a document that is too large."""
    if size > limit:
        raise FormatError(f"{size} bytes are too many for a document", what)


def checked(value: object, kind: type[_T], what: str) -> _T:
    """A value that must be of a kind."""
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {dict: "an object", list: "a list", str: "a text", int: "a number"}
        raise FormatError(f"{names[kind]} is needed here, not {str(value)[:SHOWN]!r}", what)
    return value


def list_of(document: Object, key: str, what: str) -> list[Any]:
    """A list that must be there."""
    return checked(document.get(key), list, f"{what}: {key}")


def text_of(document: Object, key: str, what: str) -> str:
    """A text that may be missing."""
    value = document.get(key)
    return "" if value is None else checked(value, str, f"{what}: {key}")


def texts_of(document: Object, key: str, what: str) -> tuple[str, ...]:
    """A list of texts that may be missing."""
    if document.get(key) is None:
        return ()
    return tuple(checked(value, str, f"{what}: {key}") for value in list_of(document, key, what))


def platform_of(document: Object, what: str) -> Platform:
    """The platform that a configuration, or an entry of an index, names."""
    return Platform(*(text_of(document, key, what) for key in ("os", "architecture", "os.version")))


def descriptor_of(value: object, what: str) -> BlobDescriptor:
    """A descriptor, whose digest is then safe to be part of a path."""
    document = checked(value, dict, what)
    size = checked(document.get("size"), int, f"{what}: size")
    if size < 0:
        raise FormatError(f"a size of {size} bytes", what)
    platform = document.get("platform")
    return BlobDescriptor(
        str(Digest.parse(document.get("digest"), f"{what}: digest")),
        size,
        text_of(document, "mediaType", what),
        texts_of(document, "urls", what),
        None if platform is None else platform_of(checked(platform, dict, f"{what}: platform"), what),
    )


def layer_of(value: object, what: str) -> BlobDescriptor:
    """The descriptor of a layer."""
    descriptor = descriptor_of(value, what)
    if not _LAYER.fullmatch(descriptor.media_type):
        raise FormatError(f"not a layer of a container image: {descriptor.media_type[:SHOWN]!r}", what)
    return descriptor


def is_foreign(media_type: str) -> bool:
    """Whether a layer may have to come from elsewhere: "non-distributable" to OCI, "foreign" to Docker."""
    match = _LAYER.fullmatch(media_type)
    return match is not None and bool(match["foreign_oci"] or match["foreign_docker"])


def diff_ids_of(config: Object, what: str) -> list[Digest]:
    """The digests of the layers' tars, base first."""
    rootfs = checked(config.get("rootfs"), dict, f"{what}: rootfs")
    if rootfs.get("type") != "layers":
        raise FormatError(f"a root file system of type {str(rootfs.get('type'))[:SHOWN]!r}", what)
    texts = list_of(rootfs, "diff_ids", what)
    if not 0 < len(texts) <= MOST_LAYERS:
        raise FormatError(f"{len(texts)} layers", what)
    return [Digest.parse(text, f"{what}: diff_ids") for text in texts]


def check_paired(layers: list[Any], diff_ids: list[Digest], what: str) -> None:
    """FormatError unless each layer has a diff ID."""
    if len(layers) != len(diff_ids):
        raise FormatError(f"{len(layers)} layers, but its configuration has {len(diff_ids)} diff IDs", what)


def is_index(document: Object, media_type: str, what: str) -> bool:
    """Whether a document is an index or a manifest; one that could be read as both is refused."""
    stated = text_of(document, "mediaType", what) or media_type
    if media_type and stated != media_type:
        raise FormatError(f"called {media_type!r}, but says {stated[:SHOWN]!r} itself", what)
    if "manifests" in document and ("layers" in document or "config" in document):
        raise FormatError("an index and a manifest at once", what)
    if stated and stated not in INDEXES | MANIFESTS:
        raise FormatError(f"a manifest of unknown type {stated[:SHOWN]!r}", what)
    has_manifests = "manifests" in document
    if stated and has_manifests != (stated in INDEXES):
        raise FormatError(f"not what it is called: {stated!r}", what)
    return has_manifests
