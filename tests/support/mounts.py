"""Mounted images, where this system has FUSE."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import run


@contextlib.contextmanager
def mounted(image: Path, directory: Path, *options: str) -> Iterator[Path]:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("fusermount3"):
        pytest.skip("FUSE is not here, or not for this user")
    directory.mkdir()
    result = run("mount", image, directory, *options)
    if result.returncode != 0:
        pytest.skip(f"FUSE does not mount here: {result.stderr.decode()}")
    assert (result.stdout, result.stderr) == (b"", b"")
    try:
        yield directory
    finally:
        result = run("unmount", directory)
    assert (result.returncode, result.stderr) == (0, b"")
