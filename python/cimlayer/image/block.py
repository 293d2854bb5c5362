"""Block images: whole images in one file or on one block device, merged with others when mounted.

The format is not public, so only the system's library of newer Windows versions can write them
(:func:`cimlayer.image.features.is_block_cim_supported`). The rules are those of hcsshim's pkg/cimfs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntFlag

from cimfs_ext import volumes
from cimfs_ext.image import ImageWriter
from cimfs_ext.implementation import Implementation
from cimlayer.errors import ImageExistsError
from cimlayer.host.paths import native_path

ROOT_HASH_SIZE = 32


class CreateFlags(IntFlag):
    """Flags of CimCreateImage2 (hcsshim, pkg/cimfs/cim_writer_windows.go)."""

    NO_PE_EXPANSION = 0x1
    FIXED_SIZE_CHUNKS = 0x2
    BLOCK_DEVICE = 0x4
    SINGLE_FILE = 0x8
    CONSISTENT = 0x10
    VERIFIED = 0x40


class MergeFlags(IntFlag):
    """Flags of CimAddFsToMergedImage2."""

    SINGLE_FILE = 0x1
    BLOCK_DEVICE = 0x2
    VERIFIED = 0x4


class BlockKind(Enum):
    """What contains the image."""

    SINGLE_FILE = "file"
    DEVICE = "device"


_CREATE = {BlockKind.SINGLE_FILE: CreateFlags.SINGLE_FILE, BlockKind.DEVICE: CreateFlags.BLOCK_DEVICE}
_MERGE = {BlockKind.SINGLE_FILE: MergeFlags.SINGLE_FILE, BlockKind.DEVICE: MergeFlags.BLOCK_DEVICE}


@dataclass(slots=True, frozen=True)
class BlockImage:
    """One image inside the file or block device at ``path``, which may contain several."""

    path: str | os.PathLike[str]
    name: str
    kind: BlockKind = BlockKind.SINGLE_FILE

    @property
    def native_path(self) -> str:
        """The path in the form that the system's library takes, without a trailing backslash."""
        return native_path(self.path).rstrip("\\")


@dataclass(slots=True, frozen=True)
class VerificationInformation:
    """What a block image records about itself; sizes in bytes, ``root_hash`` empty unless it is sealed."""

    sealed: bool
    root_hash: bytes
    signature_size: int
    fixed_header_size: int


def create_block_image(
    image: BlockImage, *, verified: bool = False, implementation: str | Implementation | None = None
) -> ImageWriter:
    """Start a block image; the same input gives the same image. Seal a verified one after its commit."""
    flags = CreateFlags.CONSISTENT | _CREATE[image.kind]
    if verified:
        flags |= CreateFlags.VERIFIED
    return ImageWriter(image.native_path, None, image.name, flags=flags, implementation=implementation)


def merge_block_images(
    merged: BlockImage,
    sources: Sequence[BlockImage],
    *,
    verified: bool = False,
    implementation: str | Implementation | None = None,
) -> None:
    """Make ``merged`` from at least two images of its kind, the topmost first, the base last.

    It refers to them and contains none of their data; they are mounted together, in the same order
    (:func:`cimlayer.image.mount.mount_merged_image`). A verified one is sealed. ImageExistsError if its file exists.
    """
    check_sources(merged, sources)
    if merged.kind is BlockKind.SINGLE_FILE and os.path.lexists(merged.native_path):
        raise ImageExistsError(errno.EEXIST, "the file of the merged image exists already", merged.native_path)
    flags = _MERGE[merged.kind]
    if verified:
        flags |= MergeFlags.VERIFIED
    with create_block_image(merged, verified=verified, implementation=implementation) as image:
        for source in sources:
            image.add_to_merged_image(f"{source.native_path}\\{source.name}", flags=flags)
        image.commit()
    if verified:
        seal_image(merged.path, implementation=implementation)


def seal_image(path: str | os.PathLike[str], *, implementation: str | Implementation | None = None) -> bytes:
    """Seal the contents of a file or device permanently, and return the root hash (32 bytes)."""
    return volumes.seal(native_path(path).rstrip("\\"), implementation=implementation)


def verification_information(
    path: str | os.PathLike[str], *, implementation: str | Implementation | None = None
) -> VerificationInformation:
    """Whether a file or device is sealed, and its root hash."""
    found = volumes.verification_information(native_path(path).rstrip("\\"), implementation=implementation)
    return VerificationInformation(*found)


def check_sources(merged: BlockImage, sources: Sequence[BlockImage]) -> None:
    """ValueError unless there are at least two sources, all of the merged image's kind."""
    if len(sources) < 2:
        raise ValueError(f"a merged image has at least two sources, not {len(sources)}: {merged.name}")
    for source in sources:
        if source.kind is not merged.kind:
            raise ValueError(f"{source.name} is on a {source.kind.value}, {merged.name} on a {merged.kind.value}")


def check_root_hash(root_hash: bytes) -> None:
    """ValueError unless it has 32 bytes."""
    if len(root_hash) != ROOT_HASH_SIZE:
        raise ValueError(f"a root hash has {ROOT_HASH_SIZE} bytes, not {len(root_hash)}")
