"""File systems of their own, in a file below a directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SIZE = 320 << 20  # of a sparse file; XFS takes no less than 300 MiB


@contextlib.contextmanager
def mounted_volume(directory: Path, kind: str) -> Iterator[Path]:
    """An empty ``xfs`` or ``btrfs``; the test is skipped where there can be none."""
    make = shutil.which(f"mkfs.{kind}")
    if make is None or os.geteuid() != 0:
        pytest.skip(f"mounting {kind} takes mkfs.{kind} and root")
    with mounted_file(directory, kind, SIZE, [make, "-q"], ["mount", "-o", "loop"]) as mount:
        yield mount


@contextlib.contextmanager
def mounted_file(directory: Path, kind: str, size: int, make: Sequence[str], mount: Sequence[str]) -> Iterator[Path]:
    """What ``make`` makes of a file of that size, where ``mount`` puts it; the test is skipped if it cannot."""
    volume, place = directory / f"{kind}.img", directory / kind
    with volume.open("wb") as file:
        file.truncate(size)
    subprocess.run([*make, volume], check=True, capture_output=True)
    place.mkdir()
    done = subprocess.run([*mount, volume, place], check=False, capture_output=True, encoding="utf-8")
    if done.returncode:
        pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True, capture_output=True)
