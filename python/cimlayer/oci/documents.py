"""Container images as folders and archives: OCI image layouts, docker-save archives and skopeo's ``dir:`` folders.

Sources of the forms: the OCI image specification 1.1 ("Image Layout", "Image Index", "Image Manifest", "Content
Descriptors"), Docker's "Image Manifest V 2, Schema 2" and "Docker Image Specification v1.2", and the page
containers-transports(5) of skopeo.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cimlayer.blobs.digests import Digest
from cimlayer.errors import DigestMismatchError, FormatError
from cimlayer.events import CancellationToken
from cimlayer.oci.sources import Files, open_files

DOCUMENT_LIMIT = 8 << 20  # bytes of a manifest, an index or a configuration; registries take 4 MiB
DEEPEST_INDEX = 8
MOST_LAYERS = 1024
MOST_IMAGES = 1024

_INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
_MANIFESTS = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
_CONFIGS = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
}
_LAYER = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.(?P<foreign_oci>nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.(?P<foreign_docker>foreign\.)?diff\.tar(?:\.gzip|\.zstd)?)"
)
_REF_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_SHOWN = 100  # characters of a stranger's text in a message
_LISTED = 20

_T = TypeVar("_T")
_Object = dict[str, Any]


@dataclass(slots=True, frozen=True)
class Platform:
    """What an image runs on; an empty field is unknown, or in a wish: any."""

    os: str
    architecture: str = ""
    os_version: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """From ``OS[/ARCHITECTURE[/OS.VERSION]]``, such as ``windows/amd64/10.0.20348``."""
        parts = text.split("/")
        if not all(parts) or len(parts) > 3:
            raise ValueError(f"not a platform as OS/ARCHITECTURE/OS.VERSION: {text!r}")
        return cls(*parts)

    def satisfies(self, wanted: Platform) -> bool:
        """Whether this is what is wanted; a wanted version may be the beginning of this one, up to a dot."""
        return (
            self.os == wanted.os
            and wanted.architecture in ("", self.architecture)
            and (not wanted.os_version or f"{self.os_version}.".startswith(f"{wanted.os_version}."))
        )

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.os_version) if part)


WINDOWS = Platform("windows")
UNKNOWN = Platform("unknown")  # as the OCI image index calls what is no image


@dataclass(slots=True, frozen=True)
class LayerBlob:
    """One layer of an image: where its bytes are, and what they must be.

    ``digest`` and ``size`` (bytes) are those of the blob, compressed as it is; a docker-save archive of the old form
    has no digest. ``size`` is None, and ``urls`` say where to get it, if the blob is not there.
    """

    path: str
    digest: Digest | None
    diff_id: Digest
    size: int | None
    urls: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How the layer is called in messages."""
        return str(self.digest or self.diff_id)


@dataclass(slots=True, frozen=True)
class Image:
    """One image of a source: its layers are in order, base first. ``digest`` is its manifest's, if it has one."""

    platform: Platform
    digest: Digest | None
    config_digest: Digest | None
    names: tuple[str, ...]
    layers: tuple[LayerBlob, ...]

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.platform), *self.names, str(self.digest or ""))))


@dataclass(slots=True, frozen=True)
class _Descriptor:
    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...]
    platform: Platform | None
    names: tuple[str, ...]


class _Form(Protocol):
    """How one kind of source lays out its images."""

    def candidates(self) -> Iterator[_Candidate]: ...


class _Candidate(Protocol):
    """An image of which only the platform was looked at."""

    identity: str
    platform: Platform
    names: tuple[str, ...]
    missing: str  # what of it is not in the source

    def load(self) -> Image: ...


class ImageSource:
    """The images of a folder or an archive. Malformed documents are a FormatError that names them."""

    def __init__(self, source: str | os.PathLike[str], cancel: CancellationToken | None = None) -> None:
        """Recognise the form: an OCI layout, docker-save or skopeo ``dir:``; in a folder or in an uncompressed tar.

        Here and in :meth:`select` it is OperationCancelledError once ``cancel`` is cancelled.
        """
        if os.fspath(source) == "-":
            raise ValueError("an image cannot be read from standard input, only a single layer: save it to a file")
        self.files = open_files(source, cancel or CancellationToken())
        self._form = self._recognise()

    def _recognise(self) -> _Form:
        if self.files.size("index.json") is not None:
            return _Layout(self.files)
        if self.files.size("manifest.json") is None:
            raise FormatError("no image: neither an index.json nor a manifest.json is in it", self.files.name)
        document = _parse(_read(self.files, "manifest.json"), "manifest.json")
        if isinstance(document, list):
            return _DockerArchive(self.files, document)
        return _SkopeoFolder(self.files)

    def select(self, platform: Platform = WINDOWS) -> Image:
        """The one image for a platform.

        What is only named in an index, as archives of one platform of many do, counts only if nothing else fits.
        ValueError if there is none or more than one; FileNotFoundError if it is named but not in the source.
        """
        candidates = {candidate.identity: candidate for candidate in self._form.candidates()}
        fitting = [candidate for candidate in candidates.values() if candidate.platform.satisfies(platform)]
        present = [candidate for candidate in fitting if not candidate.missing]
        if len(present) == 1:
            return present[0].load()
        if present:
            found = _listed(" ".join((str(candidate.platform), *candidate.names)) for candidate in present)
            raise ValueError(f"{self.files.name}: more than one image for {platform}, say which platform: {found}")
        if fitting:
            raise FileNotFoundError(errno.ENOENT, f"the image does not hold {fitting[0].missing}", self.files.name)
        found = _listed(str(candidate.platform) for candidate in candidates.values()) or "none at all"
        raise ValueError(f"{self.files.name}: no image for {platform}; there are: {found}")


def _listed(texts: Iterable[str]) -> str:
    """As many as a message can hold."""
    every = [text[:_SHOWN] for text in texts]
    more = [f"and {len(every) - _LISTED} more"] if len(every) > _LISTED else []
    return ", ".join(every[:_LISTED] + more)


# ---- documents ----


def _parse(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise FormatError(f"not JSON: {error.msg}", what, error.pos) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}", what) from error


def _read(files: Files, path: str) -> bytes:
    files.cancel.raise_if_cancelled()
    size = files.size(path)
    if size is None:
        raise FileNotFoundError(errno.ENOENT, f"the image does not hold {path[:_SHOWN]}", files.name)
    if size > DOCUMENT_LIMIT:
        raise FormatError(f"{size} bytes are too many for a document", path)
    with files.open(path) as file:
        data = b""
        while piece := file.read(DOCUMENT_LIMIT + 1 - len(data)):
            data += piece
    return data


def _read_verified(files: Files, path: str, digest: Digest, size: int | None = None) -> _Object:
    """A JSON object that has a digest."""
    name = f"blob {digest}"
    data = _read(files, path)
    if size is not None and len(data) != size:
        raise DigestMismatchError(name, f"{size} bytes", f"{len(data)} bytes")
    actual = Digest.of(digest.algorithm, data)
    if actual != digest:
        raise DigestMismatchError(name, f"digest {digest}", f"digest {actual}")
    return _checked(_parse(data, name), dict, name)


def _checked(value: object, kind: type[_T], what: str) -> _T:
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {dict: "an object", list: "a list", str: "a text", int: "a number"}
        raise FormatError(f"{names[kind]} is needed here, not {str(value)[:_SHOWN]!r}", what)
    return value


def _list(document: _Object, key: str, what: str) -> list[Any]:
    return _checked(document.get(key), list, f"{what}: {key}")


def _text(document: _Object, key: str, what: str) -> str:
    """A text that may be missing."""
    value = document.get(key)
    return "" if value is None else _checked(value, str, f"{what}: {key}")


def _texts(document: _Object, key: str, what: str) -> tuple[str, ...]:
    """A list of texts that may be missing."""
    if document.get(key) is None:
        return ()
    return tuple(_checked(value, str, f"{what}: {key}") for value in _list(document, key, what))


def _platform(document: _Object, what: str) -> Platform:
    return Platform(*(_text(document, key, what) for key in ("os", "architecture", "os.version")))


def _descriptor(value: object, what: str) -> _Descriptor:
    document = _checked(value, dict, what)
    size = _checked(document.get("size"), int, f"{what}: size")
    if size < 0:
        raise FormatError(f"a size of {size} bytes", what)
    platform = document.get("platform")
    annotations = document.get("annotations") or {}
    names = (_checked(annotations, dict, f"{what}: annotations").get(key) for key in _REF_NAMES)
    return _Descriptor(
        _text(document, "mediaType", what),
        Digest.parse(document.get("digest"), f"{what}: digest"),
        size,
        _texts(document, "urls", what),
        None if platform is None else _platform(_checked(platform, dict, f"{what}: platform"), what),
        tuple(dict.fromkeys(name for name in names if isinstance(name, str)))[:1],
    )


def _diff_ids(config: _Object, what: str) -> list[Digest]:
    rootfs = _checked(config.get("rootfs"), dict, f"{what}: rootfs")
    if rootfs.get("type") != "layers":
        raise FormatError(f"a root file system of type {str(rootfs.get('type'))[:_SHOWN]!r}", what)
    texts = _list(rootfs, "diff_ids", what)
    if not 0 < len(texts) <= MOST_LAYERS:
        raise FormatError(f"{len(texts)} layers", what)
    return [Digest.parse(text, f"{what}: diff_ids") for text in texts]


def _paired(layers: list[Any], diff_ids: list[Digest], what: str) -> Iterator[tuple[Any, Digest]]:
    if len(layers) != len(diff_ids):
        raise FormatError(f"{len(layers)} layers, but its configuration has {len(diff_ids)} diff IDs", what)
    return zip(layers, diff_ids, strict=True)


# ---- sources whose blobs are named by their digests ----


class _Blobs(Protocol):
    """Where the blobs are."""

    files: Files

    def path(self, digest: Digest) -> str: ...

    def manifest_path(self, digest: Digest) -> str: ...


class _Manifest:
    """An image that has a manifest. Documents are not kept: there may be many, and one is needed again."""

    def __init__(
        self, blobs: _Blobs, path: str, digest: Digest, document: _Object | None, descriptor: _Descriptor | None
    ) -> None:
        self._blobs = blobs
        self._path = path
        self._digest = digest
        self._what = f"manifest {digest}"
        self.names = descriptor.names if descriptor else ()
        self.missing = "" if document is not None else self._what
        self.identity = str(digest)
        self.platform = (descriptor and descriptor.platform) or self._platform_of_config(document)

    def _platform_of_config(self, document: _Object | None) -> Platform:
        if document is None:
            return UNKNOWN
        config = document.get("config")
        if not isinstance(config, dict) or _text(config, "mediaType", self._what) not in _CONFIGS:
            return UNKNOWN  # an artifact that shares the form with images, such as a signature
        return _platform(self._load_config(document), f"configuration of {self._what}")

    def _load_config(self, document: _Object) -> _Object:
        descriptor = _descriptor(document.get("config"), f"{self._what}: config")
        if descriptor.media_type not in _CONFIGS:
            raise FormatError(f"not an image: its configuration is {descriptor.media_type[:_SHOWN]!r}", self._what)
        path = self._blobs.path(descriptor.digest)
        return _read_verified(self._blobs.files, path, descriptor.digest, descriptor.size)

    def load(self) -> Image:
        document = _read_verified(self._blobs.files, self._path, self._digest)
        config = self._load_config(document)
        config_digest = _descriptor(document["config"], self._what).digest
        diff_ids = _diff_ids(config, f"configuration {config_digest}")
        pairs = _paired(_list(document, "layers", self._what), diff_ids, self._what)
        layers = tuple(self._layer(value, diff_id, number) for number, (value, diff_id) in enumerate(pairs, 1))
        return Image(self.platform, self._digest, config_digest, self.names, layers)

    def _layer(self, value: object, diff_id: Digest, number: int) -> LayerBlob:
        what = f"{self._what}: layer {number}"
        descriptor = _descriptor(value, what)
        if not _LAYER.fullmatch(descriptor.media_type):
            raise FormatError(f"not a layer of an image: {descriptor.media_type[:_SHOWN]!r}", what)
        path = self._blobs.path(descriptor.digest)
        size = self._blobs.files.size(path)
        if size is not None and size != descriptor.size:
            raise DigestMismatchError(f"blob {descriptor.digest}", f"{descriptor.size} bytes", f"{size} bytes")
        return LayerBlob(path, descriptor.digest, diff_id, size, descriptor.urls)


def _manifests(blobs: _Blobs, document: _Object, what: str, seen: set[Digest], depth: int = 1) -> Iterator[_Manifest]:
    """The images of an index and of those inside it."""
    if depth > DEEPEST_INDEX:
        raise FormatError(f"indexes in indexes more than {DEEPEST_INDEX} deep", what)
    for number, value in enumerate(_list(document, "manifests", what), 1):
        descriptor = _descriptor(value, f"{what}: entry {number}")
        if descriptor.media_type and descriptor.media_type not in _INDEXES | _MANIFESTS:
            continue  # what an index may hold beside images is to be ignored, says the specification
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        _check_count(len(seen), what)
        path = blobs.manifest_path(descriptor.digest)
        if blobs.files.size(path) is None:
            yield _Manifest(blobs, path, descriptor.digest, None, descriptor)
            continue
        inner = _read_verified(blobs.files, path, descriptor.digest, descriptor.size)
        name = f"manifest {descriptor.digest}"
        if _is_index(inner, descriptor.media_type, name):
            yield from _manifests(blobs, inner, name, seen, depth + 1)
        else:
            yield _Manifest(blobs, path, descriptor.digest, inner, descriptor)


def _check_count(images: int, what: str) -> None:
    """Each image costs reading its documents."""
    if images > MOST_IMAGES:
        raise FormatError(f"more than {MOST_IMAGES} images", what)


def _is_index(document: _Object, media_type: str, what: str) -> bool:
    """Whether a document is an index or a manifest; one that could be read as both is refused."""
    told = _text(document, "mediaType", what) or media_type
    if media_type and told != media_type:
        raise FormatError(f"called {media_type!r}, but says {told[:_SHOWN]!r} itself", what)
    if "manifests" in document and ("layers" in document or "config" in document):
        raise FormatError("an index and a manifest at once", what)
    if told and told not in _INDEXES | _MANIFESTS:
        raise FormatError(f"a manifest of unknown type {told[:_SHOWN]!r}", what)
    is_index = "manifests" in document
    if told and is_index != (told in _INDEXES):
        raise FormatError(f"not what it is called: {told!r}", what)
    return is_index


class _Layout:
    """An OCI image layout; docker-save of today makes one too."""

    def __init__(self, files: Files) -> None:
        self.files = files
        version = _checked(_parse(_read(files, "oci-layout"), "oci-layout"), dict, "oci-layout")
        if version.get("imageLayoutVersion") != "1.0.0":
            raise FormatError(f"version {str(version.get('imageLayoutVersion'))[:_SHOWN]!r}, not 1.0.0", "oci-layout")

    def path(self, digest: Digest) -> str:
        return f"blobs/{digest.algorithm}/{digest.hex}"

    manifest_path = path

    def candidates(self) -> Iterator[_Manifest]:
        document = _checked(_parse(_read(self.files, "index.json"), "index.json"), dict, "index.json")
        return _manifests(self, document, "index.json", set())


class _SkopeoFolder:
    """What ``skopeo copy ... dir:`` makes; with ``--all`` its manifest is an index."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def path(self, digest: Digest) -> str:
        return digest.hex

    def manifest_path(self, digest: Digest) -> str:
        return f"{digest.hex}.manifest.json"

    def candidates(self) -> Iterator[_Manifest]:
        data = _read(self.files, "manifest.json")
        document = _checked(_parse(data, "manifest.json"), dict, "manifest.json")
        if document.get("schemaVersion") != 2:
            raise FormatError("a manifest of schema 1, which nothing can verify", "manifest.json")
        if _is_index(document, "", "manifest.json"):
            yield from _manifests(self, document, "manifest.json", set())
        else:
            yield _Manifest(self, "manifest.json", Digest.of("sha256", data), document, None)


# ---- docker-save of old ----


class _DockerArchive:
    """A docker-save archive: its manifest.json lists configurations and layer tars by path."""

    def __init__(self, files: Files, document: list[Any]) -> None:
        self._files = files
        _check_count(len(document), "manifest.json")
        self._entries = [_checked(entry, dict, "manifest.json") for entry in document]

    def candidates(self) -> Iterator[_DockerImage]:
        return (_DockerImage(self._files, entry) for entry in self._entries)


class _DockerImage:
    """One entry of a docker-save archive's manifest.json. Its configuration is not kept: one is needed again."""

    missing = ""

    def __init__(self, files: Files, entry: _Object) -> None:
        self._files = files
        self._entry = entry
        self.identity = _checked(entry.get("Config"), str, "manifest.json: Config")
        self._digest = _digest_of_name(self.identity)
        self.names = _texts(entry, "RepoTags", "manifest.json")
        self.platform = _platform(self._load_config(), self.identity)

    def _load_config(self) -> _Object:
        path = self.identity
        if self._digest is not None:
            return _read_verified(self._files, path, self._digest)
        return _checked(_parse(_read(self._files, path), path), dict, path)

    def load(self) -> Image:
        what = f"configuration {self.identity}"
        paths = _list(self._entry, "Layers", "manifest.json")
        pairs = _paired(paths, _diff_ids(self._load_config(), what), "manifest.json")
        layers = tuple(self._layer(_checked(path, str, "manifest.json: Layers"), diff_id) for path, diff_id in pairs)
        return Image(self.platform, None, self._digest, self.names, layers)

    def _layer(self, path: str, diff_id: Digest) -> LayerBlob:
        sources = self._entry.get("LayerSources") or {}
        origin = _checked(sources, dict, "manifest.json: LayerSources").get(str(diff_id)) or {}
        urls = _texts(_checked(origin, dict, "manifest.json: LayerSources"), "urls", "manifest.json")
        return LayerBlob(path, _digest_of_name(path), diff_id, self._files.size(path), urls)


def _digest_of_name(path: str) -> Digest | None:
    """The digest in a name such as ``blobs/sha256/HEX`` or ``HEX.json``."""
    match = re.fullmatch(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?", path)
    return Digest("sha256", match[1]) if match else None
