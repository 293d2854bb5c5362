"""The region sets and files of an image, and what it shares with its parents."""

from __future__ import annotations

import bisect
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from cimfs_ext import imagepath
from cimfs_ext.entries import ImageEntry
from cimfs_ext.imagepath import CIM_DIRECTORY
from cimfs_ext.reader import REGION_SHIFT, ImageReader
from cimfs_ext.reports import RegionSet
from cimlayer.host.reflinks import shared_ranges
from cimlayer.image.files import DiskFile, ImageDirectory


@dataclass(slots=True, frozen=True)
class SetUse:
    """A region set of an image. ``owner`` is the image that wrote it, None if that no longer exists."""

    set_id: UUID
    owner: str | None
    users: tuple[str, ...]
    files: tuple[DiskFile, ...]

    @property
    def size(self) -> int:
        """Bytes on disk, of the files that exist."""
        return sum(file.size or 0 for file in self.files)


@dataclass(slots=True, frozen=True)
class Contents:
    """Counts, and sizes in bytes.

    ``bytes`` is the size of all files and alternate streams, counting a hard-linked file once; ``stored_bytes`` is what
    is stored of them, in the image or its parents: equal content once, sparse streams not at all. ``own_*`` is what is
    stored in the image's own regions: what it adds to its parent. ``shared_*`` is what of that lies in disk blocks that
    other files have too (reflinks), such as the plain tar that was imported; 0 where the file system does not say.
    """

    files: int = 0
    directories: int = 0
    hard_links: int = 0  # names beyond the first one of a file
    reparse_points: int = 0
    streams: int = 0
    bytes: int = 0
    sparse_bytes: int = 0
    stored_bytes: int = 0
    own_files: int = 0
    own_stored_bytes: int = 0
    shared_files: int = 0
    shared_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        """Bytes saved by de-duplication."""
        return self.bytes - self.sparse_bytes - self.stored_bytes


@dataclass(slots=True, frozen=True)
class Inspection:
    """An image; its region sets are in the order of its region list, its own last."""

    path: Path
    version: int
    sets: tuple[SetUse, ...]
    contents: Contents


@dataclass(slots=True, frozen=True)
class ChainLink:
    """An image of a chain; ``image`` and ``layer`` are None if only its regions are left."""

    set_id: UUID
    image: Path | None
    layer: Path | None  # the layer directory, if it is there


def inspect_image(image_path: str | os.PathLike[str]) -> Inspection:
    """Everything that ``cimlayer inspect`` shows of an image or of a layer directory's.

    Walks the whole tree, and reads no content.

    Raises ImageError if the image cannot be read; other unreadable images in the directory are ignored.
    """
    path = Path(imagepath.image_path(image_path))
    directory = ImageDirectory(path.parent)
    with ImageReader(path) as image:
        sets = tuple(
            SetUse(
                one.set_id,
                directory.owner(one.set_id),
                tuple(directory.users(one.set_id)),
                tuple(directory.files_of(one)),
            )
            for one in image.region_sets
        )
        return Inspection(path, image.version, sets, _contents(image, _SharedBlocks(path.parent, image.region_sets)))


def image_chain(image_path: str | os.PathLike[str]) -> list[ChainLink]:
    """The image, or that of a layer directory, its parent, and so on to the base.

    They are found by region sets among the images in its directory.
    """
    path = Path(os.path.abspath(imagepath.image_path(image_path)))
    with ImageReader(path) as image:
        sets = image.region_sets
    directory = ImageDirectory(path.parent)
    chain = []
    for one in reversed(sets):
        name = path.name if one is sets[-1] else directory.owner(one.set_id)
        found = None if name is None else path.parent / name
        chain.append(ChainLink(one.set_id, found, None if found is None else _layer_of(found)))
    return chain


def _layer_of(image: Path) -> Path | None:
    layer = image.parent.parent / image.stem
    return layer if image.parent.name == CIM_DIRECTORY and layer.is_dir() else None


class _SharedBlocks:
    """What of an image's own regions lies in blocks that other files have too."""

    def __init__(self, directory: Path, sets: list[RegionSet]) -> None:
        first = sum(one.count for one in sets[:-1])
        self._begins: list[int] = []  # region offsets
        self._ends: list[int] = []
        for number, name in enumerate(sets[-1].file_names()[: sets[-1].count]):
            with contextlib.suppress(OSError), (directory / name).open("rb") as file:
                for offset, length in shared_ranges(file.fileno()):
                    begin = ((first + number) << REGION_SHIFT) + offset
                    self._begins.append(begin)
                    self._ends.append(begin + length)

    def of(self, begin: int, length: int) -> int:
        """How many bytes of what is stored there."""
        end, shared = begin + length, 0
        at = bisect.bisect_right(self._ends, begin)
        while at < len(self._begins) and self._begins[at] < end:
            shared += min(end, self._ends[at]) - max(begin, self._begins[at])
            at += 1
        return shared


def _contents(image: ImageReader, shared: _SharedBlocks) -> Contents:
    own_region = sum(one.count for one in image.region_sets[:-1])
    counts = dict.fromkeys(Contents.__dataclass_fields__, 0)
    seen: set[int] = set()
    stored: dict[int, int] = {}  # region offset -> length
    for _, entry in image.walk():
        counts["directories" if entry.is_directory else "files"] += 1
        if entry.file_id in seen:
            counts["files"] -= 1
            counts["hard_links"] += 1
            continue
        seen.add(entry.file_id)
        counts["reparse_points"] += entry.is_reparse_point
        found = extents(image, entry)
        counts["streams"] += len(found) - (not entry.is_directory)
        counts["own_files"] += any(offset >> REGION_SHIFT >= own_region for offset, length in found if length)
        counts["shared_files"] += any(shared.of(offset, length) for offset, length in found if offset)
        for offset, length in found:
            counts["bytes"] += length
            if offset:
                stored[offset] = max(length, stored.get(offset, 0))
            else:
                counts["sparse_bytes"] += length
    counts["stored_bytes"] = sum(stored.values())
    counts["own_stored_bytes"] = sum(
        length for offset, length in stored.items() if offset >> REGION_SHIFT >= own_region
    )
    counts["shared_bytes"] = sum(shared.of(offset, length) for offset, length in stored.items())
    return Contents(**counts)


def extents(image: ImageReader, entry: ImageEntry) -> list[tuple[int, int]]:
    """Region offset and length of the content, first, and of the alternate streams."""
    extents = [] if entry.is_directory else [image.location(entry)]
    return extents + [image.location(entry, stream.name) for stream in image.streams(entry)]
