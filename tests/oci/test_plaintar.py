"""Layers that share disk blocks with the plain tar that they came from."""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cimlayer.blobs.decompression import plain_file
from cimlayer.image.inspect import Contents, inspect_image
from cimlayer.oci.import_layer import import_layer
from cimlayer.oci.plaintar import PlainTar
from support.commands import run
from support.layers import add_base_hives
from support.tars import TarBuilder
from support.volumes import mounted_volume

BLOCK, SECTOR = 4096, 512
LARGE = 30 * BLOCK
NAMES = ("Files/aligned", "Files/beside", "Files/cut", "Files/small", "Files/replaced")


def layer_tar() -> bytes:
    """Files on block boundaries, but for ``beside``; ``cut`` does not end on one, ``small`` is too small to bother."""
    content = random.Random(1)
    tar = TarBuilder()
    add_base_hives(tar)
    for name in NAMES:
        size = {"Files/cut": LARGE + 100, "Files/small": BLOCK}.get(name, LARGE)
        at = SECTOR if name == "Files/beside" else 0
        while (sum(map(len, tar.parts)) + SECTOR) % BLOCK != at:
            tar.directory("Files")
        tar.file(name, content.randbytes(size))
    tar.file("Files/replaced", b"by this")
    return tar.finish()


@pytest.fixture(params=["xfs", "btrfs"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with mounted_volume(tmp_path, request.param) as mount:
        yield mount


def imported(directory: Path, data: bytes, *, sync: bool = True) -> Contents:
    (directory / "layer.tar").write_bytes(data)
    import_layer(directory / "layer.tar", directory / "layer", sync=sync, reproducible=True, scratch_disks=False)
    return inspect_image(directory / "layer").contents


def image_bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "cim-layers").iterdir()}


def test_large_files_on_block_boundaries_are_shared(volume: Path, tmp_path: Path) -> None:
    contents = imported(volume, layer_tar())
    assert (contents.shared_files, contents.shared_bytes) == (2, 2 * LARGE)
    (tmp_path / "elsewhere").mkdir()
    imported(tmp_path / "elsewhere", layer_tar())
    assert image_bytes(volume) == image_bytes(tmp_path / "elsewhere")
    assert b"2 files, 240.0 KiB in disk blocks that other files share" in run("inspect", volume / "layer").stdout


def test_what_is_written_to_the_tar_afterwards_is_not_in_the_layer(volume: Path) -> None:
    imported(volume, layer_tar())
    before = image_bytes(volume)
    with (volume / "layer.tar").open("r+b") as file:
        file.write(bytes(len(layer_tar())))
        file.flush()
        os.fsync(file.fileno())
    assert image_bytes(volume) == before


def test_nothing_is_shared_without_sync_or_with_what_is_compressed(volume: Path) -> None:
    assert imported(volume, layer_tar(), sync=False).shared_bytes == 0
    for number, data in enumerate((gzip.compress(layer_tar()), layer_tar())):
        (volume / str(number)).mkdir()
        shared = imported(volume / str(number), data).shared_bytes
        assert bool(shared) == (number == 1)


def test_a_tar_that_has_changed_is_not_shared(volume: Path) -> None:
    imported(volume, layer_tar(), sync=False)
    tar = bytearray(layer_tar())
    at = tar.index(b"Files/aligned\0") + SECTOR
    tar[at] ^= 1
    (volume / "layer.tar").write_bytes(tar)
    before = image_bytes(volume)
    with (volume / "layer.tar").open("rb") as file:
        plain = PlainTar.of(plain_file(file))
        assert plain is not None
        plain.aligned_file(r"Files\aligned", at)
        assert plain.share_blocks(volume / "layer") == 0
    assert image_bytes(volume) == before


def test_a_file_system_without_reflinks_is_no_error(tmp_path: Path) -> None:
    assert imported(tmp_path, layer_tar()).shared_bytes in (0, 2 * LARGE)  # the latter where it has them
