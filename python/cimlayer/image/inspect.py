"""The region sets and files of an image, and what it shares with its parents."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from cimfs_ext import imagepath
from cimfs_ext.entries import ImageEntry
from cimfs_ext.imagepath import CIM_DIRECTORY
from cimfs_ext.reader import ImageReader
from cimlayer.image.files import DiskFile, ImageDirectory

REGION_SHIFT = 48


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
    stored in the image's own regions: what it adds to its parent.
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
        return Inspection(path, image.version, sets, _contents(image))


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


def _contents(image: ImageReader) -> Contents:
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
    return Contents(**counts)


def extents(image: ImageReader, entry: ImageEntry) -> list[tuple[int, int]]:
    """Region offset and length of the content, first, and of the alternate streams."""
    extents = [] if entry.is_directory else [image.location(entry)]
    return extents + [image.location(entry, stream.name) for stream in image.streams(entry)]
