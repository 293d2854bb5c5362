"""An NTFS volume, mounted by ntfs-3g."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.volumes import mounted_file


@contextlib.contextmanager
def mounted_ntfs(directory: Path, *, options: str = "streams_interface=xattr", size: int = 32 << 20) -> Iterator[Path]:
    """An empty volume below a directory; the test is skipped where there can be none."""
    if not (shutil.which("mkntfs") and shutil.which("ntfs-3g")) or os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("mounting NTFS takes ntfs-3g, /dev/fuse and root")
    with mounted_file(directory, "ntfs", size, ["mkntfs", "-F", "-q"], ["ntfs-3g", "-o", options]) as mount:
        yield mount
