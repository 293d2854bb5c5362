"""Which container image of a source is wanted, and what its documents say of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

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
    config: Object


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
            platform = self._platform(descriptor.platform, document, what)
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

    def _platform(self, stated: Platform | None, manifest: Object, what: str) -> Platform:
        """That of the index; the configuration completes it, as builders leave the version of Windows to that."""
        if stated is not None and (stated.os != WINDOWS.os or stated.os_version):
            return stated
        config = manifest.get("config")
        if not isinstance(config, dict) or text_of(config, "mediaType", what) not in CONFIGS:
            return stated or UNKNOWN  # an artifact that shares the form with images, such as a signature
        found = platform_of(_load_config(self._source, manifest, what)[1], f"configuration of {what}")
        return found if stated is None else replace(stated, os_version=found.os_version)


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
    groups: dict[str, list[tuple[str, Candidate]]] = {}
    for found in candidates_by_reference(source, reference, check):
        group = groups.setdefault(next(iter(found.names), ""), [])  # entries without a name are as those of an index
        group += ((found.references[0], each) for each in found.candidates)
    chosen = [each for group in groups.values() for each in _fitting(group, platform)]
    chosen = [(name, each) for name, each in chosen if not each.missing] or chosen[:1]
    if len({each.descriptor.digest for _, each in chosen}) > 1:
        listed = _listed(f"{each.platform} {name}" for name, each in chosen)
        raise ValueError(
            f"{source.name}: more than one container image for {platform};"
            f" say which platform, version or reference: {listed}"
        )
    if not chosen:
        every = [each for group in groups.values() for _, each in group]
        for each in every:
            if each.problem is not None and each.descriptor.platform is None:
                raise each.problem
        listed = _listed(dict.fromkeys(str(each.platform) for each in every)) or "none at all"
        raise ValueError(f"{source.name}: no container image for {platform} (available: {listed})")
    return _load(source, chosen[0][1])


@dataclass(slots=True, frozen=True)
class FoundReference:
    """An entry of a source, with the container images that it stands for."""

    entry: int
    names: tuple[str, ...]
    candidates: tuple[Candidate, ...]

    @property
    def references(self) -> tuple[str, ...]:
        """What it may be asked for by."""
        return (*self.names, f"@{self.entry}")


def candidates_by_reference(source: ImageSource, wanted: str | None, check: Callable[[], None]) -> list[FoundReference]:
    """The entries of a source that a reference means, or all of them."""
    check()
    candidates = Candidates(source, check)
    digest = wanted if wanted is not None and _DIGEST.fullmatch(wanted) else None
    entries = list(enumerate(islice(source.references(), MOST_IMAGES + 1)))
    if len(entries) > MOST_IMAGES:
        raise FormatError(f"more than {MOST_IMAGES} container images", source.name)
    if wanted is not None and digest is None:
        entries = _named(source.name, entries, wanted)
    found = [FoundReference(number, each.names, tuple(candidates.of(each))) for number, each in entries]
    if digest is not None:
        kept = {each.descriptor.digest for each in candidates.with_digest(digest)}
        if not kept:
            raise ValueError(f"{source.name}: no manifest or index has the digest {digest}")
        found = [
            replace(each, candidates=tuple(c for c in each.candidates if c.descriptor.digest in kept)) for each in found
        ]
    return found


def _named(source: str, entries: list[tuple[int, ImageReference]], wanted: str) -> list[tuple[int, ImageReference]]:
    if wanted.startswith("@"):
        number = int(wanted[1:]) if re.fullmatch("@[0-9]{1,9}", wanted) else len(entries)
        if number >= len(entries):
            raise ValueError(f"{source}: no entry {wanted[:SHOWN]}; there are {len(entries)}, counted from @0")
        return [entries[number]]
    for form in (str, _full_name):  # as it is written, or as Docker completes names
        found = [(number, each) for number, each in entries if form(wanted) in map(form, each.names)]
        if found:
            return found
    names = _listed(name for _, each in entries for name in each.names) or "none"
    raise ValueError(f"{source}: nothing is called {wanted[:SHOWN]!r}; names in it: {names}")


def _full_name(name: str) -> str:
    """A name without Docker's defaults: ``docker.io/library/nginx`` is ``nginx:latest``."""
    name = re.sub("^(index\\.)?docker\\.io/(library/)?", "", name)
    return name if re.search("[:@][^/]*$", name) else f"{name}:latest"


def _fitting(group: Sequence[tuple[str, Candidate]], wanted: Platform) -> Iterable[tuple[str, Candidate]]:
    """Those of one name that are wanted: of each Windows build the newest revision."""
    found = [each for each in group if each[1].platform.satisfies(wanted)]
    if not found and wanted.os_version:
        bare = replace(wanted, os_version="")
        found = [each for each in group if each[1].platform.satisfies(bare) and not each[1].platform.os_version]
    newest: dict[tuple[str, tuple[int, ...]], list[tuple[str, Candidate]]] = {}
    for each in [each for each in found if not each[1].missing] or found:
        platform = each[1].platform
        best = newest.setdefault((platform.architecture, platform.version[:3]), [])
        if best and platform.version > best[0][1].platform.version:
            best.clear()
        if not best or platform.version == best[0][1].platform.version:
            best.append(each)
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
    return ContainerImage(candidate.platform, candidate.digest, config_descriptor.digest, layers, config)


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
