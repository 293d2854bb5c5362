"""Where a container image lies: a path whose content says what it is, or skopeo's notation for it.

Source of the notation: skopeo's containers-transports(5).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken
from cimlayer.layer.paths import is_cim_layer
from cimlayer.limits import DEFAULT_LIMITS, Limits
from cimlayer.oci.dockerarchive import DockerArchive
from cimlayer.oci.documents import SHOWN, parse
from cimlayer.oci.files import Files, opened_files
from cimlayer.oci.layouts import OciLayout, SkopeoFolder, read_file, read_object
from cimlayer.oci.sources import ImageSource

_FORMS: dict[str, Callable[[Files], ImageSource]] = {
    "oci": OciLayout,
    "oci-archive": OciLayout,
    "docker-archive": DockerArchive,
    "dir": SkopeoFolder,
}
_ELSEWHERE = re.compile("(docker|docker-daemon|containers-storage|containerd|ostree|sif|tarball|https?):")
_NOTATION = (
    "docker://HOST/NAME[:TAG], a path, oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF] or dir:DIR"
)


class OpenedSource(NamedTuple):
    """A source, and which of its images was named."""

    source: ImageSource
    reference: str | None


@contextlib.contextmanager
def opened_source(
    location: str | os.PathLike[str] | ImageSource,
    reference: str | None = None,
    cancel: CancellationToken | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[OpenedSource]:
    """An OCI layout, a docker archive or a skopeo folder: a folder, or a tar that may be compressed.

    ``location`` is a path, or in skopeo's notation ``oci:DIR[:REF]``, ``oci-archive:FILE[:REF]``,
    ``docker-archive:FILE[:REF]`` or ``dir:DIR``; the file ``-`` is standard input. ``docker://...`` is in a container
    registry (:class:`~cimlayer.ContainerRegistry` with its defaults). An object that is a source already stays as it
    is. FormatError for anything else, ValueError for another notation, OperationCancelledError once ``cancel`` is
    cancelled, here and in what the source does. A FormatError of the ``with`` block says which source it is about.
    """
    with _opened(location, reference, cancel or CancellationToken(), limits) as opened:
        try:
            yield opened
        except FormatError as error:
            error.source = opened.source.name
            raise


@contextlib.contextmanager
def _opened(
    location: str | os.PathLike[str] | ImageSource, reference: str | None, cancel: CancellationToken, limits: Limits
) -> Iterator[OpenedSource]:
    if not isinstance(location, (str, os.PathLike)):
        yield OpenedSource(location, reference)
        return
    if os.fspath(location).startswith("docker://"):
        from cimlayer.oci.registry.source import ContainerRegistry  # noqa: PLC0415  it needs an extra

        with ContainerRegistry(os.fspath(location), cancel=cancel) as registry:
            yield OpenedSource(registry, reference)
        return
    form, path, named = parse_location(os.fspath(location))
    if None not in (named, reference):
        raise ValueError(f"two references, {named!r} and {reference!r}")
    with contextlib.ExitStack() as stack:
        try:
            files = stack.enter_context(opened_files(path, cancel, limits))
        except FileNotFoundError as error:
            if ":" not in path or form is not None:
                raise
            raise FileNotFoundError(
                errno.ENOENT, f"{os.strerror(errno.ENOENT)}; SOURCE is {_NOTATION}", path
            ) from error
        yield OpenedSource(_recognised(files) if form is None else _FORMS[form](files), named or reference)


def absolute_location(location: str | os.PathLike[str]) -> str:
    """The location as it is from any working directory; one that means nothing stays as it is."""
    text = os.fspath(location)
    if text == "-" or text.startswith("docker://"):
        return text
    try:
        form, path, reference = parse_location(text)
    except ValueError:
        return text
    if not Path(path).exists():
        return text
    parts = [form, os.path.abspath(path), reference]
    return ":".join(part for part in parts if part is not None)


def parse_location(location: str) -> tuple[str | None, str, str | None]:
    """Form, path and reference."""
    form, _, rest = location.partition(":")
    if form not in _FORMS:
        if _ELSEWHERE.match(location) and not Path(location).exists():
            raise ValueError(
                f"{location[:SHOWN]}: container images come from container registries and files; SOURCE is {_NOTATION},"
                " to which skopeo copy, docker save and others save them"
            )
        return None, location, None
    if not rest:
        raise ValueError(f"{location}: no path; SOURCE is {_NOTATION}")
    if form == "dir" or Path(rest).exists():
        return form, rest, None
    colons = [at for at, character in enumerate(rest) if character == ":" and (at > 1 or os.name != "nt")]
    for at in colons:
        if Path(rest[:at]).exists():
            break
    else:
        at = colons[0] if colons else len(rest)
    return form, rest[:at], rest[at + 1 :] or None


def _recognised(files: Files) -> ImageSource:
    if files.size("index.json") is not None:
        hybrid = files.size("manifest.json") is not None
        if hybrid and not read_object(files, "index.json").get("manifests"):
            return DockerArchive(files)  # Docker 25.0 saved an image that was named by its digest so (moby 47210)
        return OciLayout(files)
    if files.size("manifest.json") is None:
        raise FormatError(
            f"no container image: neither an index.json nor a manifest.json is in it{_hint(files)}", files.name
        )
    if isinstance(parse(read_file(files, "manifest.json"), "manifest.json"), list):
        return DockerArchive(files)
    return SkopeoFolder(files)


def _hint(files: Files) -> str:
    """What it may be instead."""
    names = files.top_names()
    if is_cim_layer(files.name) or "cim-layers" in names:
        return "; it holds CIM layers, which were imported already"
    if names & {"Files", "Hives"}:
        return "; it looks like a single layer, which cimlayer import takes"
    if "repositories" in names:
        return "; it is of a Docker before 1.10: load it and save it again"
    for name in sorted(names)[:SHOWN]:
        if any(files.size(f"{name}/{document}") is not None for document in ("index.json", "manifest.json")):
            return f"; there is one in {name[:SHOWN]}"
    return ""
