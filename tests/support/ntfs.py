"""An NTFS volume, mounted by ntfs-3g."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted_ntfs(directory: Path, *, options: str = "streams_interface=xattr", size: int = 32 << 20) -> Iterator[Path]:
    """An empty volume below a directory; the test is skipped where there can be none."""
    if not (shutil.which("mkntfs") and shutil.which("ntfs-3g")) or os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("mounting NTFS takes ntfs-3g, /dev/fuse and root")
    volume, mount = directory / "ntfs.img", directory / "ntfs"
    with volume.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkntfs", "-F", "-q", volume], check=True, capture_output=True)
    mount.mkdir()
    done = subprocess.run(["ntfs-3g", "-o", options, volume, mount], check=False, capture_output=True, encoding="utf-8")
    if done.returncode:
        pytest.skip(f"ntfs-3g cannot mount here: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True, capture_output=True)
