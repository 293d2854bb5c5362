"""Who a disk is: GUIDs, serial numbers and times, random and current or all derived from a seed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from uuid import UUID

_FILETIME_OF_UNIX_EPOCH = 116_444_736_000_000_000
_SEEDED_FILETIME = 125_911_584_000_000_000  # 2000-01-01T00:00:00Z


@dataclass(frozen=True, slots=True)
class DiskIdentity:
    """The GUIDs by which boot configuration finds a GPT disk and its basic data partition."""

    disk_guid: UUID
    partition_guid: UUID


class IdentitySource:
    """Gives every part of a disk its identifier; with a seed the same part gets the same one each time."""

    def __init__(self, seed: bytes | None) -> None:
        self._seed = seed

    def _bytes(self, part: str, count: int) -> bytes:
        if self._seed is None:
            return os.urandom(count)
        import hashlib  # noqa: PLC0415  OpenSSL takes its time to load

        key = hashlib.sha256(self._seed).digest()
        return hashlib.blake2b(part.encode(), key=key, digest_size=count).digest()

    def guid(self, part: str) -> UUID:
        """Return the version 4 GUID of ``part``."""
        return UUID(bytes=self._bytes(part, 16), version=4)

    def serial(self, part: str) -> int:
        """Return the 64-bit serial number of ``part``."""
        return int.from_bytes(self._bytes(part, 8), "little")

    def created(self) -> int:
        """Return the FILETIME for what is made now: the current time, or with a seed one fixed time."""
        if self._seed is None:
            return time.time_ns() // 100 + _FILETIME_OF_UNIX_EPOCH
        return _SEEDED_FILETIME
