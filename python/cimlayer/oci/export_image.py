"""A chain of CIM layers as a container image: the counterpart of :mod:`cimlayer.oci.import_image`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cimlayer.blobs.digests import Digest
from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken, ProgressCallback
from cimlayer.layer.windowsversion import windows_version
from cimlayer.limits import DEFAULT_LIMITS, Limits
from cimlayer.oci.documents import SHOWN
from cimlayer.oci.export_layer import parent_layers
from cimlayer.oci.locations import parse_location
from cimlayer.oci.origins import Origin, read_origin
from cimlayer.oci.platforms import Platform
from cimlayer.oci.sources import BlobDescriptor
from cimlayer.oci.targetfiles import opened_file_target
from cimlayer.oci.targets import Compression, ImageTarget, LayerBlob, WrittenLayer
from cimlayer.tracing import span

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_NOTATION = "docker://HOST/NAME[:TAG], oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:NAME:TAG] or dir:DIR"
_FIELDS: dict[str, type] = {
    "ArgsEscaped": bool,
    "Cmd": list,
    "Entrypoint": list,
    "Env": list,
    "ExposedPorts": dict,
    "Labels": dict,
    "Shell": list,
    "StopSignal": str,
    "User": str,
    "Volumes": dict,
    "WorkingDir": str,
}


@dataclass(slots=True, frozen=True)
class ExportedLayer:
    """A layer as it went out. ``original`` is the digest of the blob that it was imported from, if that is known."""

    path: Path
    diff_id: str
    digest: str
    size: int
    original: str | None


@dataclass(slots=True, frozen=True)
class ExportedImage:
    """A container image that was written. ``digest`` is its manifest's, in a docker archive its configuration's.

    ``platform`` is ``windows/ARCHITECTURE``, followed by ``/VERSION`` if the version of Windows is known. Layers are in
    order, base first.
    """

    platform: str
    digest: str
    config_digest: str
    layers: tuple[ExportedLayer, ...]


def export_image(
    layer_path: str | os.PathLike[str],
    destination: str | ImageTarget,
    *,
    config: Mapping[str, Any] | None = None,
    os_version: str | None = None,
    compression: Compression | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: ProgressCallback | None = None,
    cancel: CancellationToken | None = None,
) -> ExportedImage:
    """Write a layer and all below it as a container image.

    ``destination`` is ``docker://HOST[:PORT]/NAME[:TAG]``, ``oci:DIR[:REF]``, ``oci-archive:FILE[:REF]``,
    ``docker-archive:FILE[:NAME:TAG]`` or ``dir:DIR``. An image is added to an OCI image layout; archives and ``dir:``
    folders must not exist. Each layer's tar is that of :func:`~cimlayer.export_layer`, compressed with
    ``compression``: ``gzip`` (the default), ``zstd`` or ``none``, which a docker archive always has. The same chain
    gives the same image. ``progress`` is called with :class:`~cimlayer.FilesProgress` of one layer after the other.

    The platform, the history and, of the top layer, the configuration are those of the image that the layers were
    imported from. ``config`` replaces fields of the latter (OCI image specification, "Image Configuration",
    ``config``). The version of Windows is ``os_version``, else that of the imported image, else that of the SOFTWARE
    hive; if that does not say either, the image has none, and runs wherever its platform does.

    A container registry is not sent what it has: a layer's blob, or the one that it was imported from if that has the
    same tar. ValueError for another destination or an invalid ``config``, FileExistsError for an archive or folder
    that is there, what :func:`~cimlayer.export_layer` and :class:`~cimlayer.ContainerRegistry` raise. A failure
    leaves no file, and no tag.
    """
    _check_config(config or {})
    cancel = cancel or CancellationToken()
    top = Path(os.path.abspath(layer_path))
    chain = [*reversed(parent_layers(top)), top]
    origins = [read_origin(layer) for layer in chain]
    with span("export_image", layer=top.name), _opened(destination, cancel) as target:
        kind = compression or target.compressions[0]
        if kind not in target.compressions:
            raise ValueError(f"{destination}: its layers cannot have the compression {kind!r}")
        written = []
        for at, layer in enumerate(chain):
            blob = LayerBlob(layer, list(reversed(chain[:at])), kind, limits, progress, cancel)
            written.append(target.layer(blob, origins[at]))
        platform = _platform(origins, os_version, top)
        of_config = _described(_config(platform, origins, written, config or {}), _CONFIG)
        of_manifest = _described(_manifest(of_config[0], written), _MANIFEST)
        digest = target.finish(of_config, of_manifest)
    layers = tuple(
        ExportedLayer(
            layer, each.diff_id, each.blob.digest, each.blob.size or 0, origin.blob.digest if origin.blob else None
        )
        for layer, each, origin in zip(chain, written, origins, strict=True)
    )
    return ExportedImage(str(platform), digest, of_config[0].digest, layers)


@contextlib.contextmanager
def _opened(destination: str | ImageTarget, cancel: CancellationToken) -> Iterator[ImageTarget]:
    if not isinstance(destination, str):
        yield destination
    elif destination.startswith("docker://"):
        from cimlayer.oci.registry.target import registry_target  # noqa: PLC0415  it needs an extra

        with registry_target(destination, cancel=cancel) as target:
            yield target
    else:
        form, path, name = parse_location(destination)
        if form is None:
            raise ValueError(f"{destination[:SHOWN]}: DEST is {_NOTATION}")
        with opened_file_target(form, Path(path), name) as target:
            yield target


# ---- documents ----


def _platform(origins: list[Origin], os_version: str | None, top: Path) -> Platform:
    base = next((each.platform for each in origins if each.platform.os), Platform("windows"))
    return Platform("windows", base.architecture or "amd64", os_version or base.os_version or windows_version(top))


def _config(platform: Platform, origins: list[Origin], layers: list[WrittenLayer], config: Mapping[str, Any]) -> bytes:
    """The configuration. It has no time of its own, so that the same chain gives the same image."""
    document: dict[str, Any] = {
        "architecture": platform.architecture,
        "os": platform.os,
        "os.version": platform.os_version,
        "config": {**origins[-1].config, **config},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [origin.history or {"created_by": "cimlayer"} for origin in origins],
    }
    if not platform.os_version:
        del document["os.version"]
    return _json(document)


def _manifest(config: BlobDescriptor, layers: list[WrittenLayer]) -> bytes:
    descriptors = [_record(layer.blob) for layer in layers]
    return _json({"schemaVersion": 2, "mediaType": _MANIFEST, "config": _record(config), "layers": descriptors})


def _record(descriptor: BlobDescriptor) -> dict[str, object]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _described(data: bytes, media_type: str) -> tuple[BlobDescriptor, bytes]:
    return BlobDescriptor(str(Digest.of("sha256", data)), len(data), media_type), data


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _check_config(config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        kind = _FIELDS.get(key)
        if kind is None:
            raise FormatError(f"not a field of an image's configuration; those are {', '.join(_FIELDS)}", key[:SHOWN])
        texts = not isinstance(value, list) or all(isinstance(each, str) for each in value)
        if not isinstance(value, kind) or not texts:
            raise FormatError("a value of another type than the field has", key)
