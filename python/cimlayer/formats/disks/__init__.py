"""Scratch disks without Windows: empty NTFS volumes on dynamic VHDX disks, and differencing disks on top of them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cimlayer.formats.disks import gpt, ntfs, vhdx
from cimlayer.formats.disks.extents import SECTOR, shifted
from cimlayer.formats.disks.identity import DiskIdentity, IdentitySource
from cimlayer.host.paths import errors_name, native_path

if sys.platform == "win32":
    from cimfs_ext import winfiles

__all__ = ["DiskIdentity", "create_differencing_disk", "create_formatted_disk", "create_scratch_disk"]

_VIRTUAL_MACHINES = b"S-1-5-83-0"


def create_scratch_disk(
    base_path: str | os.PathLike[str],
    diff_path: str | os.PathLike[str],
    size: int,
    *,
    seed: bytes | None = None,
    sync: bool = True,
) -> DiskIdentity:
    """Make a formatted disk and a differencing disk on it, replacing existing ones; both appear or neither.

    As ``create_formatted_disk`` and ``create_differencing_disk``.
    """
    base, diff = Path(base_path), Path(diff_path)
    source = IdentitySource(seed)
    with _replacing(base, diff, sync=sync) as (base_file, diff_file):
        with errors_name(base):
            identity, parent = _write_formatted(base_file, size, source)
        with errors_name(diff):
            vhdx.write_differencing(diff_file, parent, _relative(base, diff), source)
    return identity


def create_formatted_disk(
    path: str | os.PathLike[str], size: int, *, seed: bytes | None = None, sync: bool = True
) -> DiskIdentity:
    """Make a dynamic VHDX of ``size`` bytes (whole MiB) with a GPT and an empty NTFS volume ([MS-VHDX]).

    An existing file is replaced once the new disk is complete; a failure leaves it unchanged. GUIDs and serial number
    are random and times are current, or all are derived from ``seed``: give every disk its own. ``sync=False`` does
    not wait for the disk. ``ValueError`` for a size that no such disk can have.
    """
    target = Path(path)
    with _replacing(target, sync=sync) as (file,):
        identity, _ = _write_formatted(file, size, IdentitySource(seed))
    return identity


def create_differencing_disk(
    path: str | os.PathLike[str],
    parent_path: str | os.PathLike[str],
    *,
    seed: bytes | None = None,
    sync: bool = True,
) -> None:
    """Make an empty differencing VHDX on the current content of the VHDX at ``parent_path``.

    It refers to its parent by relative path, so both can be moved together; writing to the parent invalidates it.
    Existing files, ``seed`` and ``sync`` are treated as by ``create_formatted_disk``. ``FormatError`` if the parent is
    not a VHDX, ``ValueError`` if no relative path leads to it.
    """
    target, parent = Path(path), Path(parent_path)
    with parent.open("rb") as parent_file:
        below = vhdx.read_parent(parent_file, str(parent))
    with _replacing(target, sync=sync) as (file,):
        vhdx.write_differencing(file, below, _relative(parent, target), IdentitySource(seed))


def _write_formatted(file: BinaryIO, size: int, source: IdentitySource) -> tuple[DiskIdentity, vhdx.Parent]:
    if size % vhdx.BLOCK or size > vhdx.MAX_SIZE:
        raise ValueError(f"a disk has whole MiB, at most {vhdx.MAX_SIZE >> 40} TiB: not {size} bytes")
    identity = DiskIdentity(source.guid("disk"), source.guid("data partition"))
    volume = ntfs.format_volume(
        gpt.data_partition_size(size),
        first_sector=gpt.DATA_OFFSET // SECTOR,
        serial=source.serial("volume"),
        created=source.created(),
    )
    reserved = source.guid("reserved partition")
    table = gpt.partition_table(size, identity.disk_guid, reserved, identity.partition_guid)
    return identity, vhdx.write_dynamic(file, size, [*table, *shifted(volume, gpt.DATA_OFFSET)], source)


def _relative(parent: Path, child: Path) -> str:
    """Return the way from ``child``'s directory to ``parent`` as the parent locator writes it."""
    path = os.path.relpath(parent, child.parent).replace(os.sep, "\\")
    return path if path.startswith("..\\") else f".\\{path}"


@contextlib.contextmanager
def _replacing(*paths: Path, sync: bool) -> Iterator[tuple[BinaryIO, ...]]:
    """Open a new file for each path; they take their places together, or after an error none is left."""
    token = os.urandom(8).hex()
    drafts = [path.with_name(f".{path.name}.{token}") for path in paths]
    placed: list[Path] = []
    try:
        with contextlib.ExitStack() as stack:
            files = []
            for path, draft in zip(paths, drafts, strict=True):
                stack.enter_context(errors_name(path))  # of closing it, too
                files.append(stack.enter_context(draft.open("x+b")))
            yield tuple(files)
            for path, file in zip(paths, files, strict=True):
                with errors_name(path):
                    file.flush()
                    if sync:
                        os.fsync(file.fileno())
        for draft, path in zip(drafts, paths, strict=True):
            _admit_virtual_machines(draft)
            draft.replace(path)
            placed.append(path)
    except BaseException:
        for path in drafts + placed:
            path.unlink(missing_ok=True)
        raise


def _admit_virtual_machines(path: Path) -> None:
    """On Windows, let the group of all virtual machines read the disk; elsewhere there is no such group.

    As hcsshim's ``GrantVmGroupAccess`` does (``internal/security``).
    """
    if sys.platform == "win32":
        winfiles.let_read(native_path(path), _VIRTUAL_MACHINES)
