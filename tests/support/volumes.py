"""File systems of their own, in a file below a directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SIZE = 320 << 20  # of a sparse file; XFS takes no less than 300 MiB


@contextlib.contextmanager
def mounted_volume(directory: Path, kind: str) -> Iterator[Path]:
    """An empty ``xfs`` or ``btrfs``; the test is skipped where there can be none."""
    make = shutil.which(f"mkfs.{kind}")
    if make is None or os.geteuid() != 0:
        pytest.skip(f"mounting {kind} takes mkfs.{kind} and root")
    volume, mount = directory / f"{kind}.img", directory / kind
    with volume.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run([make, "-q", volume], check=True, capture_output=True)
    mount.mkdir()
    done = subprocess.run(["mount", "-o", "loop", volume, mount], check=False, capture_output=True, encoding="utf-8")
    if done.returncode:
        pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True, capture_output=True)
