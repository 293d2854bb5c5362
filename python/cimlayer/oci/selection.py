"""Which container image of a source is wanted, and what its documents say of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cimlayer.blobs.digests import Digest
from cimlayer.errors import DigestMismatchError, FormatError
from cimlayer.oci.documents import (
    CONFIGS,
    DOCKER_ARCHIVE_MANIFEST,
    INDEXES,
    MANIFESTS,
    SHOWN,
    Object,
    check_paired,
    descriptor_of,
    diff_ids_of,
    is_index,
    layer_of,
    list_of,
    platform_of,
    read_verified,
    text_of,
)
from cimlayer.oci.platforms import UNKNOWN, WINDOWS, Platform
from cimlayer.oci.sources import BlobDescriptor, ImageReference, ImageSource

DEEPEST_INDEX = 8
MOST_IMAGES = 1024
_LISTED = 20
_DIGEST = re.compile("sha(256|512):[0-9a-f]+")


@dataclass(slots=True, frozen=True)
class Layer:
    """One layer of a container image: its blob as it is stored, and the digest of the tar in it."""

    blob: BlobDescriptor
    diff_id: Digest


@dataclass(slots=True, frozen=True)
class ContainerImage:
    """A container image: its layers are in order, base first. ``digest`` is its manifest's, if it has one."""

    platform: Platform
    digest: str | None
    config_digest: str
    layers: tuple[Layer, ...]


@dataclass(slots=True)
class Candidate:
    """A container image of which only the platform was looked at; ``problem`` says why it cannot be used."""

    descriptor: BlobDescriptor
    platform: Platform
    problem: FileNotFoundError | FormatError | None = None

    @property
    def digest(self) -> str | None:
        """The manifest's digest, if there is a manifest."""
        made = self.descriptor.media_type == DOCKER_ARCHIVE_MANIFEST
        return None if made else self.descriptor.digest

    @property
    def missing(self) -> bool:
        """Whether an index names it, and the source does not have it, as archives of one platform out of many."""
        return isinstance(self.problem, FileNotFoundError)


class Candidates:
    """All container images of a source, by reference; indexes are followed, each document is read once.

    Documents are not kept: there may be many, and one is needed again.
    """

    def __init__(self, source: ImageSource, check: Callable[[], None]) -> None:
        """Nothing is read yet; ``check`` is called before each document and may raise."""
        self._source = source
        self._check = check
        self._known: dict[BlobDescriptor, dict[str, Candidate]] = {}

    def of(self, reference: ImageReference) -> list[Candidate]:
        """Those of one reference."""
        return list(self._expand(reference.descriptor, 1).values())

    def with_digest(self, digest: str) -> list[Candidate]:
        """Of what was looked at: the manifest that has a digest, or those of the index that has it."""
        return next(
            (list(found.values()) for descriptor, found in self._known.items() if descriptor.digest == digest), []
        )

    def _expand(self, descriptor: BlobDescriptor, depth: int) -> dict[str, Candidate]:
        """Digest -> candidate, of a manifest or of an index and those inside it."""
        if descriptor not in self._known:
            if len(self._known) >= MOST_IMAGES:  # each costs reading its documents
                raise FormatError(f"more than {MOST_IMAGES} container images", self._source.name)
            self._known[descriptor] = {}  # an index cannot hold itself, and if it did, it would add nothing
            self._known[descriptor] = self._look(descriptor, depth)
        return self._known[descriptor]

    def _look(self, descriptor: BlobDescriptor, depth: int) -> dict[str, Candidate]:
        if descriptor.media_type and descriptor.media_type not in INDEXES | MANIFESTS:
            return {}  # what an index may hold beside images is to be ignored, says the specification
        self._check()
        what = f"manifest {descriptor.digest}"
        platform = descriptor.platform or UNKNOWN
        problem: FileNotFoundError | FormatError
        try:
            document = read_verified(self._source, descriptor)
            if is_index(document, descriptor.media_type, what):
                return self._entries(document, what, depth + 1)
            platform = descriptor.platform or self._platform_of_config(document, what)
            return {descriptor.digest: Candidate(descriptor, platform)}
        except (FileNotFoundError, FormatError) as error:
            problem = error.with_traceback(None)
        return {descriptor.digest: Candidate(descriptor, platform, problem)}

    def _entries(self, index: Object, what: str, depth: int) -> dict[str, Candidate]:
        if depth > DEEPEST_INDEX:
            raise FormatError(f"indexes in indexes more than {DEEPEST_INDEX} deep", what)
        found: dict[str, Candidate] = {}
        for number, value in enumerate(list_of(index, "manifests", what), 1):
            for digest, candidate in self._expand(descriptor_of(value, f"{what}: entry {number}"), depth).items():
                found.setdefault(digest, candidate)
        return found

    def _platform_of_config(self, manifest: Object, what: str) -> Platform:
        config = manifest.get("config")
        if not isinstance(config, dict) or text_of(config, "mediaType", what) not in CONFIGS:
            return UNKNOWN  # an artifact that shares the form with images, such as a signature
        return platform_of(_load_config(self._source, manifest, what)[1], f"configuration of {what}")


@dataclass(slots=True, frozen=True)
class ListedImage:
    """A container image of a source, as it may be asked for.

    ``entry`` is the number of its reference, from 0, and ``names`` are the reference's. ``digest`` is None in a docker
    archive, which has no manifests. ``problem`` says why the image cannot be used, if so.
    """

    entry: int
    names: tuple[str, ...]
    platform: Platform
    digest: str | None
    problem: str | None


def list_candidates(source: ImageSource, check: Callable[[], None] = lambda: None) -> list[ListedImage]:
    """All container images of a source, reference by reference, without attestations and other artifacts."""
    check()
    candidates = Candidates(source, check)
    return [
        ListedImage(
            number, reference.names, each.platform, each.digest, None if each.problem is None else str(each.problem)
        )
        for number, reference in enumerate(source.references())
        for each in candidates.of(reference)
        if each.platform.os not in ("", UNKNOWN.os) or each.problem is not None
    ]


def select(
    source: ImageSource,
    platform: Platform = WINDOWS,
    reference: str | None = None,
    check: Callable[[], None] = lambda: None,
) -> ContainerImage:
    """The one container image that is wanted; ``check`` is called before each document and may raise.

    ``reference`` is a name, ``@N`` for the entry of that number (from 0), or the digest of a manifest or index; None
    leaves the choice to the platform. Of one name the newest revision of a Windows build is taken, and an image
    whose version is unknown only if no version fits, as containerd's matcher for Windows has it. What is only named
    in an index counts only if nothing else fits. ValueError if there is none or more than one; else what is wrong with
    the one.
    """
    groups = _by_name(source, reference, check)
    every = [candidate for group in groups.values() for candidate in group]
    chosen = [(name, each) for name, group in groups.items() for each in _fitting(group, platform)]
    chosen = [(name, each) for name, each in chosen if not each.missing] or chosen[:1]
    if len({each.descriptor.digest for _, each in chosen}) > 1:
        found = _listed(f"{each.platform} {name}".rstrip() for name, each in chosen)
        raise ValueError(
            f"{source.name}: more than one container image for {platform};"
            f" say which platform, version or reference: {found}"
        )
    if not chosen:
        for candidate in every:
            if candidate.problem is not None and candidate.descriptor.platform is None:
                raise candidate.problem
        found = _listed(dict.fromkeys(str(candidate.platform) for candidate in every)) or "none at all"
        raise ValueError(f"{source.name}: no container image for {platform}; there are: {found}")
    return _load(source, chosen[0][1])


def _by_name(source: ImageSource, wanted: str | None, check: Callable[[], None]) -> dict[str, list[Candidate]]:
    """The candidates of the references that are wanted; those without a name belong together, as in an index."""
    check()
    references = list(source.references())
    candidates = Candidates(source, check)
    if wanted is not None and not _DIGEST.fullmatch(wanted):
        references = _named(source.name, references, wanted)
    groups: dict[str, list[Candidate]] = {}
    for reference in references:
        groups.setdefault(next(iter(reference.names), ""), []).extend(candidates.of(reference))
    if wanted is not None and _DIGEST.fullmatch(wanted):
        groups = {wanted: candidates.with_digest(wanted)}
        if not groups[wanted]:
            raise ValueError(f"{source.name}: no manifest or index has the digest {wanted}")
    return groups


def _named(source: str, references: list[ImageReference], wanted: str) -> list[ImageReference]:
    if wanted.startswith("@"):
        number = int(wanted[1:]) if re.fullmatch("@[0-9]{1,9}", wanted) else len(references)
        if number >= len(references):
            raise ValueError(f"{source}: no entry {wanted}; there are {len(references)}, counted from @0")
        return [references[number]]
    for form in (str, _full_name):  # as it is written, or as Docker completes names
        found = [each for each in references if form(wanted) in map(form, each.names)]
        if found:
            return found
    names = _listed(name for each in references for name in each.names) or "none"
    raise ValueError(f"{source}: nothing is called {wanted[:SHOWN]!r}; names in it: {names}")


def _full_name(name: str) -> str:
    """A name without Docker's defaults: ``docker.io/library/nginx`` is ``nginx:latest``."""
    name = re.sub("^(index\\.)?docker\\.io/(library/)?", "", name)
    return name if re.search("[:@][^/]*$", name) else f"{name}:latest"


def _fitting(group: Sequence[Candidate], wanted: Platform) -> Iterable[Candidate]:
    """Those of one name that are wanted: of each Windows build the newest revision."""
    found = [each for each in group if each.platform.satisfies(wanted)]
    if not found and wanted.os_version:
        any_version = Platform(wanted.os, wanted.architecture)
        found = [each for each in group if each.platform.satisfies(any_version) and not each.platform.os_version]
    newest: dict[tuple[str, tuple[int, ...]], list[Candidate]] = {}
    for each in [each for each in found if not each.missing] or found:
        build = each.platform.architecture, each.platform.version[:3]
        others = newest.setdefault(build, [])
        if not others or each.platform.version > others[0].platform.version:
            newest[build] = [each]
        elif each.platform.version == others[0].platform.version:
            others.append(each)
    return [each for best in newest.values() for each in best]


def _listed(texts: Iterable[str]) -> str:
    """As many as a message can hold."""
    every = [text[:SHOWN] for text in texts]
    more = [f"and {len(every) - _LISTED} more"] if len(every) > _LISTED else []
    return ", ".join(every[:_LISTED] + more)


# ---- the documents of the chosen one ----


def _load(source: ImageSource, candidate: Candidate) -> ContainerImage:
    if candidate.problem is not None:
        raise candidate.problem
    what = f"manifest {candidate.descriptor.digest}"
    manifest = read_verified(source, candidate.descriptor)
    config_descriptor, config = _load_config(source, manifest, what)
    diff_ids = diff_ids_of(config, f"configuration {config_descriptor.digest}")
    values = list_of(manifest, "layers", what)
    check_paired(values, diff_ids, what)
    blobs = [layer_of(value, f"{what}: layer {number}") for number, value in enumerate(values, 1)]
    for blob in blobs:
        size = source.blob_size(blob)
        if size is not None and blob.size is not None and size != blob.size:
            raise DigestMismatchError(f"blob {blob.digest}", f"{blob.size} bytes", f"{size} bytes")
    layers = tuple(Layer(blob, diff_id) for blob, diff_id in zip(_in_order(blobs, diff_ids), diff_ids, strict=True))
    return ContainerImage(candidate.platform, candidate.digest, config_descriptor.digest, layers)


def _in_order(blobs: list[BlobDescriptor], diff_ids: list[Digest]) -> list[BlobDescriptor]:
    """The layers as the diff IDs order them, where their digests are the same.

    Docker 25.0.0 saved layers, which it does not compress, in another order (moby's pull request 47160).
    """
    by_digest = {blob.digest: blob for blob in blobs}
    right = [str(diff_id) for diff_id in diff_ids]
    return [by_digest[digest] for digest in right] if sorted(right) == sorted(each.digest for each in blobs) else blobs


def _load_config(source: ImageSource, manifest: Object, what: str) -> tuple[BlobDescriptor, Object]:
    descriptor = descriptor_of(manifest.get("config"), f"{what}: config")
    if descriptor.media_type not in CONFIGS:
        raise FormatError(f"not a container image: its configuration is {descriptor.media_type[:SHOWN]!r}", what)
    return descriptor, read_verified(source, descriptor)
