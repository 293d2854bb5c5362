"""Disks and volumes for tests, and the external readers that look at them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cimlayer.formats.disks import gpt, ntfs

if TYPE_CHECKING:
    from dissect.hypervisor.disk.vhdx import VHDX

MIB, GIB = 1 << 20, 1 << 30
SERIAL = 0x1122334455667788


def run(tool: str, *arguments: str | Path) -> bytes:
    """Run an external reader; skip the test where it is not installed, fail it when the reader does."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, check=False)
    assert done.returncode == 0, f"{tool}: {(done.stdout + done.stderr).decode(errors='replace')}"
    return done.stdout


def volume_image(path: Path, size: int) -> Path:
    """Write a formatted volume, sparsely, as a plain file."""
    with path.open("wb") as file:
        for offset, data in ntfs.format_volume(size, first_sector=2048, serial=SERIAL, created=1 << 56):
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path


def partition_image(disk: Path, disk_size: int, path: Path) -> Path:
    """Copy the basic data partition of a VHDX, sparsely, to a plain file by means of qemu-img."""
    size = gpt.data_partition_size(disk_size)
    source = f"driver=raw,offset={gpt.DATA_OFFSET},size={size},file.driver=vhdx,file.file.filename={disk}"
    run("qemu-img", "convert", "--image-opts", source, "-O", "raw", path)
    return path


@contextlib.contextmanager
def opened(path: Path) -> Iterator[VHDX]:
    """Open a VHDX, and the disks below it, with an independent reader that leaves its files open."""
    from dissect.hypervisor.disk.vhdx import VHDX

    disk = VHDX(path)
    try:
        yield disk
    finally:
        layer: VHDX | None = disk
        while layer is not None:
            layer.fh.close()
            layer = layer.parent
