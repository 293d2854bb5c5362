"""An uncompressed tar on the disk, whose blocks a layer that was made of it can share."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cimfs_ext.reader import REGION_SHIFT, ImageReader
from cimlayer.host.reflinks import BLOCK, share_blocks
from cimlayer.layer.paths import get_cim_path_from_layer


class PlainTar:
    """A regular file that holds a tar from ``start`` on, and what of it lies on block boundaries."""

    def __init__(self, file: int, start: int) -> None:
        self._file, self._start = file, start
        self._aligned: dict[str, int] = {}  # path in the image -> offset in the file

    @classmethod
    def of(cls, found: tuple[int, int] | None) -> PlainTar | None:
        """Of what ``plain_file`` found; None for nothing, or what cannot have anything on a block boundary."""
        return cls(*found) if found is not None and found[1] % BLOCK == 0 and sys.platform == "linux" else None

    def aligned_file(self, path: str, offset: int) -> None:
        """Take notice of a file whose content begins on a block boundary of the tar."""
        self._aligned[path] = self._start + offset

    def share_blocks(self, layer_path: str | os.PathLike[str]) -> int:
        """Let the image of the layer, which is complete, share those blocks; returns how many bytes it does.

        The layer is as good without: where the file system cannot, or the layer is gone by now, that ends it.
        """
        shared = 0
        with contextlib.suppress(OSError):
            for offset, region, place, size in self._places(get_cim_path_from_layer(layer_path)):
                shared += share_blocks(self._file, offset, region, place, size)
        return shared

    def _places(self, cim: Path) -> Iterator[tuple[int, int, int, int]]:
        """For each file: the offset in the tar; the region file, open; the offset there; bytes in whole blocks."""
        if not self._aligned:
            return
        with ImageReader(cim) as image, contextlib.ExitStack() as stack:
            *parents, own = image.region_sets
            first = sum(one.count for one in parents)
            regions: dict[int, int] = {}
            for path, offset in self._aligned.items():
                try:
                    at, size = image.location(path)
                except (FileNotFoundError, IsADirectoryError):
                    continue  # a later entry has taken its name
                index = (at >> REGION_SHIFT) - first
                if index < 0 or at == 0:
                    continue  # the parent's
                if index not in regions:
                    regions[index] = os.open(cim.parent / own.file_names()[index], os.O_RDWR | os.O_CLOEXEC)
                    stack.callback(os.close, regions[index])
                yield offset, regions[index], at & (1 << REGION_SHIFT) - 1, size // BLOCK * BLOCK
