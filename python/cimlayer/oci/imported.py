"""What an import has made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True, frozen=True)
class ImportedLayer:
    """One imported layer.

    ``chain_id`` names the layer with all below it, ``diff_id`` is its tar's digest, ``digest`` its blob's; for a layer
    that was imported alone the first is None, and the others are what the caller gave and the import verified.
    ``bytes`` is the sum of its files' sizes; ``seconds`` is 0 for a reused layer. ``utility_vm`` is ``processed`` or
    ``kept``, None if the layer has no utility VM or was reused.
    """

    path: Path
    chain_id: str | None
    diff_id: str | None
    digest: str | None
    reused: bool
    bytes: int
    seconds: float
    utility_vm: str | None = None


@dataclass(slots=True, frozen=True)
class ImportedImage:
    """A container image whose layers are all there: from the base up; ``top`` is the last one's directory.

    ``digest`` is that of its manifest, which a docker archive does not have.
    """

    top: Path
    platform: str
    digest: str | None
    config_digest: str
    layers: tuple[ImportedLayer, ...]
