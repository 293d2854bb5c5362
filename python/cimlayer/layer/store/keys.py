"""Which layer it is: the key under which a store has it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, fields

from cimlayer.blobs.digests import Digest
from cimlayer.layer.processing import UtilityVm

_OPTIONS_DIGITS = 16
_KEY = re.compile(f"[0-9a-f]{{64}}([0-9a-f]{{64}})?(-[0-9a-f]{{{_OPTIONS_DIGITS}}})?")  # of a SHA-256 or SHA-512


def _epoch() -> str | None:
    return os.environ.get("SOURCE_DATE_EPOCH")


@dataclass(slots=True, frozen=True)
class ByteOptions:
    """The options of an import that change the bytes of a layer, and with them its key."""

    reproducible: bool = False
    utility_vm: UtilityVm = "auto"
    scratch_disks: bool = True
    source_date_epoch: str | None = field(default_factory=_epoch)

    def changed(self) -> dict[str, object]:
        """Those that are not the defaults, by name."""
        defaults = ByteOptions(source_date_epoch=None)
        mine = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in mine.items() if value != getattr(defaults, name)}

    def key(self, chain_id: Digest) -> str:
        """The chain ID's hex digits; options that are not the defaults add a digest of themselves."""
        changed = self.changed()
        if not changed:
            return chain_id.hex
        import hashlib  # noqa: PLC0415  OpenSSL takes its time to load

        text = json.dumps(changed, sort_keys=True).encode()
        return f"{chain_id.hex}-{hashlib.sha256(text).hexdigest()[:_OPTIONS_DIGITS]}"


def is_key(name: str) -> bool:
    """Whether a name may be a layer's key."""
    return _KEY.fullmatch(name) is not None
