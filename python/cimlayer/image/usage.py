"""How much space the directories of an image take, and how much of it they share."""

from __future__ import annotations

from dataclasses import dataclass, field

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import REGION_SHIFT, ImageReader
from cimlayer.image.entrynames import shown
from cimlayer.image.inspect import extents


@dataclass(slots=True, eq=False)
class DirectoryUsage:
    """A directory and everything below it; sizes are in bytes.

    ``bytes`` is the size of its files and alternate streams, a hard-linked file once. ``stored_bytes`` is what is
    stored of that, equal content once; ``parent_bytes`` is the part of it that the image's parents have, and
    ``freed_bytes`` the part that would not be stored if the image were made without this directory.
    """

    path: str
    file_id: int
    depth: int  # 0 for the root
    bytes: int = 0
    stored_bytes: int = 0
    parent_bytes: int = 0
    freed_bytes: int = 0


_Place = tuple[DirectoryUsage, ...]  # a directory, behind those that lead to it


@dataclass(slots=True)
class ImageUsage:
    """All directories, each after those in it, and the bytes of content in each region that the image uses."""

    directories: list[DirectoryUsage] = field(default_factory=list)
    region_bytes: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Extent:
    """Stored content: the last place that it was met in, and how many directories lead to all such places."""

    length: int
    place: _Place
    common: int


def image_usage(image: ImageReader) -> ImageUsage:
    """Measure an image: walks the whole tree and reads no content."""
    measure = _Measure(image)
    root = image.stat("")
    measure.enter("", root)
    measure.add(root)
    for path, entry in image.walk():
        measure.leave_to(path.count("\\"))
        if entry.is_directory:
            measure.enter(path, entry)
        measure.add(entry)
    return measure.finish()


class _Measure:
    """The walk so far.

    What is met again counts for those directories alone that have not led to it before. As the walk is depth first,
    these are the ones that do not lead to the place where it was last met.
    """

    def __init__(self, image: ImageReader) -> None:
        self._image = image
        self._own_region = sum(one.count for one in image.region_sets[:-1])
        self._usage = ImageUsage()
        self._place: _Place = ()
        self._files: dict[int, _Place] = {}
        self._extents: dict[int, _Extent] = {}

    def enter(self, path: str, entry: ImageEntry) -> None:
        self._place = (*self._place, DirectoryUsage(shown(path), entry.file_id, len(self._place)))

    def leave_to(self, depth: int) -> None:
        """The next entry has a path with so many separators."""
        self._usage.directories += reversed(self._place[depth + 1 :])
        self._place = self._place[: depth + 1]

    def add(self, entry: ImageEntry) -> None:
        found = extents(self._image, entry)
        size = sum(length for _, length in found)
        for directory in self._new_to(self._files.get(entry.file_id, ())):
            directory.bytes += size
        self._files[entry.file_id] = self._place
        for offset, length in found:
            if offset and length:
                self._add_extent(offset, length)

    def _add_extent(self, offset: int, length: int) -> None:
        extent = self._extents.get(offset)
        region = offset >> REGION_SHIFT
        if extent is None:
            extent = self._extents[offset] = _Extent(length, (), len(self._place))
            self._usage.region_bytes[region] = self._usage.region_bytes.get(region, 0) + length
        new = self._new_to(extent.place)
        if extent.place:
            extent.common = min(extent.common, len(self._place) - len(new))
        extent.place = self._place
        for directory in new:
            directory.stored_bytes += length
            if region < self._own_region:
                directory.parent_bytes += length

    def _new_to(self, place: _Place) -> _Place:
        """The directories that lead here but not to that place."""
        common = next((n for n, (a, b) in enumerate(zip(self._place, place, strict=False)) if a is not b), None)
        return self._place[min(len(self._place), len(place)) if common is None else common :]

    def finish(self) -> ImageUsage:
        self.leave_to(-1)
        for offset, extent in self._extents.items():
            if offset >> REGION_SHIFT >= self._own_region:
                for directory in extent.place[: extent.common]:
                    directory.freed_bytes += extent.length
        return self._usage
