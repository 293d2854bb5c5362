"""Scratch disks for a whole store of layers, as containerd keeps them at the root of its snapshots."""

from __future__ import annotations

import errno
import os

from cimlayer.formats.disks import create_scratch_disk
from cimlayer.layer.paths import store_of
from cimlayer.layer.processing import SCRATCH_SIZE
from cimlayer.layer.standard import SCRATCH, SCRATCH_BASE


def create_scratch_disks(directory: str | os.PathLike[str], *, sync: bool = True) -> None:
    """Make ``blank-base.vhdx``, a formatted disk of 20 GiB, and ``blank.vhdx``, a differencing disk on it.

    The directory is that of the store, or its ``cim-layers``; it is made if it is missing. FileExistsError if one of
    the disks is there: containers' disks may lie on it, and would be void. ``sync`` false does not wait for the
    storage.
    """
    root = store_of(directory)
    root.mkdir(exist_ok=True)
    base, blank = root / SCRATCH_BASE, root / SCRATCH
    for disk in (base, blank):
        if os.path.lexists(disk):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(disk))
    create_scratch_disk(base, blank, SCRATCH_SIZE, sync=sync)
