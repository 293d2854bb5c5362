from collections.abc import Sequence
from uuid import UUID

from cimfs_ext.implementation import Implementation

def mount(
    directory: str,
    name: str,
    volume: UUID,
    *,
    flags: int = 0,
    root_hash: bytes | None = None,
    implementation: str | Implementation | None = None,
) -> None: ...
def mount_merged(
    images: Sequence[tuple[str, str]],
    volume: UUID,
    *,
    flags: int = 0,
    root_hash: bytes | None = None,
    implementation: str | Implementation | None = None,
) -> None: ...
def dismount(volume: UUID, *, implementation: str | Implementation | None = None) -> None: ...
def seal(block_path: str, *, implementation: str | Implementation | None = None) -> bytes: ...
def verification_information(
    block_path: str, *, implementation: str | Implementation | None = None
) -> tuple[bool, bytes, int, int]: ...
