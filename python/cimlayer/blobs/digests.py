"""Digests as OCI images write them: ``algorithm:hex`` (OCI image specification, "Digests")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from cimlayer.errors import FormatError

_HEX_DIGITS = {"sha256": 64, "sha512": 128}
_SHOWN = 100


class Hash(Protocol):
    """A running hash, as in hashlib."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far."""


@dataclass(slots=True, frozen=True)
class Digest:
    """The digest of a blob; as text, it is in the form that manifests use."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: object, what: str) -> Digest:
        """Parse the text in a manifest; ``what`` names its place. FormatError for anything but SHA-256 and SHA-512.

        Only lower-case hex digits are accepted, so the text is a safe file name too.
        """
        if isinstance(text, str):
            algorithm, _, digits = text.partition(":")
            if len(digits) == _HEX_DIGITS.get(algorithm) and re.fullmatch("[0-9a-f]+", digits):
                return cls(algorithm, digits)
        raise FormatError(f"not a sha256 or sha512 digest: {str(text)[:_SHOWN]!r}", what)

    @classmethod
    def of(cls, algorithm: str, data: bytes) -> Digest:
        """The digest of some bytes."""
        whole = _new_hash(algorithm)
        whole.update(data)
        return cls(algorithm, whole.hexdigest())

    def new_hash(self) -> Hash:
        """A new hash with this digest's algorithm."""
        return _new_hash(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def _new_hash(algorithm: str) -> Hash:
    import hashlib  # noqa: PLC0415  most imports check no digest, and OpenSSL takes its time to load

    return hashlib.new(algorithm)


def chain_ids(diff_ids: list[Digest]) -> list[Digest]:
    """The chain ID of each layer, base first (OCI image specification, "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of("sha256", f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
