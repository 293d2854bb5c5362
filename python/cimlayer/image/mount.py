r"""Images as volumes: ``\\?\Volume{...}\`` while they are mounted.

Only Windows can mount; elsewhere every function here raises :class:`~cimlayer.errors.UnsupportedCallError`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from enum import IntFlag
from uuid import UUID, uuid4

from cimfs_ext import volumes
from cimfs_ext.implementation import Implementation, choose
from cimlayer.host.paths import native_path
from cimlayer.image.block import BlockImage, BlockKind, check_root_hash, check_sources


class MountFlags(IntFlag):
    """Flags of CimMountImage (hcsshim, pkg/cimfs/mount_cim.go)."""

    ENABLE_DAX = 0x2
    BLOCK_DEVICE = 0x10
    SINGLE_FILE = 0x20
    VERIFIED = 0x80


_KIND_FLAGS = {BlockKind.SINGLE_FILE: MountFlags.SINGLE_FILE, BlockKind.DEVICE: MountFlags.BLOCK_DEVICE}


def volume_path(volume: UUID) -> str:
    """The path of a mounted volume's root, with a trailing backslash."""
    return rf"\\?\Volume{{{volume}}}" + "\\"


def volume_of(path: str) -> UUID:
    """The volume with that path, with or without what is around its ID; ValueError for anything else."""
    match = re.fullmatch(r"(?:\\\\\?\\Volume)?\{?([0-9A-Fa-f-]{36})\}?\\?", path)
    if match is None:
        raise ValueError(f"not the path of a volume, as mount prints it: {path!r}")
    return UUID(match[1])


@contextlib.contextmanager
def mount_image(
    image: str | os.PathLike[str] | BlockImage,
    *,
    flags: int = 0,
    root_hash: bytes | None = None,
    volume: UUID | None = None,
    implementation: str | Implementation | None = None,
) -> Iterator[str]:
    """Mount an image for the duration of the block, and return the path of its root.

    ``image`` is the path of a ``.cim`` file, or a block image; ``flags`` are :class:`MountFlags`. With ``root_hash``
    (32 bytes, block images only) every read is verified. ``volume`` is the volume ID, by default a new one.
    Raises :class:`~cimlayer.errors.ImageError` if the system refuses, and
    :class:`~cimlayer.errors.UnsupportedCallError` where nothing can be mounted.
    """
    calls = choose(implementation)
    mounted = mount_volume(image, flags=flags, root_hash=root_hash, volume=volume, implementation=calls)
    with _dismounted_at_end(mounted, calls):
        yield volume_path(mounted)


def mount_volume(
    image: str | os.PathLike[str] | BlockImage,
    *,
    flags: int = 0,
    root_hash: bytes | None = None,
    volume: UUID | None = None,
    implementation: str | Implementation | None = None,
) -> UUID:
    """As :func:`mount_image`, but until :func:`dismount_image`, also beyond the end of this process."""
    volume = volume or uuid4()
    if isinstance(image, BlockImage):
        directory, name = image.native_path, image.name
        flags |= _KIND_FLAGS[image.kind]
    elif root_hash is not None:
        raise ValueError(f"only a block image has a root hash: {os.fspath(image)}")
    else:
        directory, name = os.path.split(native_path(image))
    if root_hash is not None:
        check_root_hash(root_hash)
    volumes.mount(directory, name, volume, flags=flags, root_hash=root_hash, implementation=implementation)
    return volume


@contextlib.contextmanager
def mount_merged_image(
    merged: BlockImage,
    sources: Sequence[BlockImage],
    *,
    flags: int = 0,
    root_hash: bytes | None = None,
    volume: UUID | None = None,
    implementation: str | Implementation | None = None,
) -> Iterator[str]:
    """As :func:`mount_image`, for a merged image; ``sources`` are the images merged into it, in the same order."""
    check_sources(merged, sources)
    if root_hash is not None:
        check_root_hash(root_hash)
    calls = choose(implementation)
    volume = volume or uuid4()
    volumes.mount_merged(
        [(image.native_path, image.name) for image in (merged, *sources)],
        volume,
        flags=flags | _KIND_FLAGS[merged.kind],
        root_hash=root_hash,
        implementation=calls,
    )
    with _dismounted_at_end(volume, calls):
        yield volume_path(volume)


def dismount_image(volume: UUID, *, implementation: str | Implementation | None = None) -> None:
    """Dismount a volume that was left mounted by a process that has ended."""
    volumes.dismount(volume, implementation=implementation)


@contextlib.contextmanager
def _dismounted_at_end(volume: UUID, calls: Implementation) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # What happened in the block is what the caller must see.
        with contextlib.suppress(OSError):
            volumes.dismount(volume, implementation=calls)
        raise
    volumes.dismount(volume, implementation=calls)
