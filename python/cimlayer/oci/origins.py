"""What a layer came from: kept beside it by an import, so that an export can say the same again.

Source of the fields: the OCI image specification 1.1 ("Image Configuration").
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cimlayer.layer.standard import RECORD
from cimlayer.oci.platforms import Platform
from cimlayer.oci.registry.references import PREFIX, RegistryReference
from cimlayer.oci.sources import BlobDescriptor

RECORD_LIMIT = 1 << 16  # bytes
_CONFIG_LIMIT = 1 << 14  # and of the part that says how to run a container
_HISTORY = ("created", "created_by", "author", "comment")
_TEXT_LIMIT = 4096  # characters of a line of history

Object = dict[str, Any]


@dataclass(slots=True, frozen=True)
class Origin:
    """A layer as a container image had it.

    ``host`` and ``repository`` are of the container registry that the blob came from, if it did; ``config`` is how the
    image ran, known for the top layer of an import.
    """

    diff_id: str = ""
    blob: BlobDescriptor | None = None
    host: str = ""
    repository: str = ""
    platform: Platform = field(default_factory=lambda: Platform(""))
    history: Object = field(default_factory=dict)
    config: Object = field(default_factory=dict)


def origin_records(source: str, platform: Platform, blobs: list[BlobDescriptor], config: Object) -> list[Object]:
    """What to keep of each layer, base first; ``source`` is the name of where the image comes from."""
    every = config.get("history")
    history = [each for each in every if isinstance(each, dict)] if isinstance(every, list) else []
    history = [each for each in history if each.get("empty_layer") is not True]
    if len(history) != len(blobs):
        history = [{}] * len(blobs)
    repository = _repository_of(source)
    records = []
    for blob, line in zip(blobs, history, strict=True):
        kept = {key: line[key][:_TEXT_LIMIT] for key in _HISTORY if isinstance(line.get(key), str)}
        of_blob = {"digest": blob.digest, "size": blob.size, "media_type": blob.media_type}
        of_platform = {"os": platform.os, "architecture": platform.architecture, "os.version": platform.os_version}
        records.append({"blob": of_blob, "platform": of_platform, "history": kept, **repository})
    how = config.get("config")
    if isinstance(how, dict) and len(json.dumps(how)) <= _CONFIG_LIMIT:
        records[-1]["config"] = how
    return records


def _repository_of(source: str) -> Object:
    if not source.startswith(PREFIX):
        return {}
    try:
        reference = RegistryReference.parse(source)
    except ValueError:  # a program's own source may have any name
        return {}
    return {"host": reference.host, "repository": reference.repository}


def read_origin(layer: Path) -> Origin:
    """What is known of a layer: nothing, if it was imported alone."""
    try:
        with (layer / RECORD).open("rb") as file:
            record = json.loads(file.read(RECORD_LIMIT))
        origin = record["origin"]
        blob, platform = origin["blob"], origin["platform"]
        return Origin(
            record["diff_id"],
            BlobDescriptor(blob["digest"], blob["size"], blob["media_type"]),
            str(origin.get("host", "")),
            str(origin.get("repository", "")),
            Platform(*(str(platform[key]) for key in ("os", "architecture", "os.version"))),
            dict(origin["history"]),
            dict(origin.get("config", {})),
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return Origin()
