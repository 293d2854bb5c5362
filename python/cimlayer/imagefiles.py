"""The files of an image directory, and which images they belong to."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from cimfs_ext.entries import RegionSet
from cimfs_ext.reader import ImageReader
from cimlayer.errors import ImageError

_GUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_SET_FILE = re.compile(f"(region|objectid)_({_GUID})_[0-9]+")
_TEMPORARY = re.compile(f"image_{_GUID}_[0-9]+|objectid_{_GUID}_[0-9]+\\.tmp")


@dataclass(slots=True, frozen=True)
class DiskFile:
    """A file of an image directory. ``size`` is in bytes, None if the file is missing."""

    name: str
    size: int | None


class ImageDirectory:
    """What lies in a directory of images when this is made. Images that cannot be read are kept with their error.

    Others may write there meanwhile: what is gone before it was looked at was never there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises OSError if the directory cannot be listed."""
        self.path = Path(path)
        self.region_sets: dict[str, list[RegionSet]] = {}  # of each readable image, its own set last
        self.unreadable: dict[str, ImageError] = {}
        self._files: dict[str, int] = {}
        with os.scandir(self.path) as found:
            for file in found:
                with suppress(FileNotFoundError):  # that of a writer, which has just renamed or removed it
                    if file.is_file(follow_symlinks=False):
                        self._files[file.name] = file.stat(follow_symlinks=False).st_size
        for name in sorted(self._files):
            if name.lower().endswith(".cim"):
                self._read(name)

    def _read(self, name: str) -> None:
        try:
            with ImageReader(self.path / name) as image:
                self.region_sets[name] = image.region_sets
        except ImageError as error:
            if (self.path / name).exists():
                self.unreadable[name] = error
            else:
                del self._files[name]

    def owner(self, set_id: UUID) -> str | None:
        """The image whose own set this is; None if it is not there."""
        return next((name for name, sets in self.region_sets.items() if sets[-1].set_id == set_id), None)

    def users(self, set_id: UUID) -> list[str]:
        """The images that refer to a set, its owner among them."""
        return [name for name, sets in self.region_sets.items() if any(one.set_id == set_id for one in sets)]

    def files_of(self, region_set: RegionSet) -> list[DiskFile]:
        """The files that a set should have."""
        return [DiskFile(name, self._files.get(name)) for name in region_set.file_names()]

    def orphans(self) -> list[DiskFile]:
        """Region and object ID files of sets that no readable image refers to, and temporary files.

        Those of an image that is being written are among them.
        """
        used = {str(one.set_id) for sets in self.region_sets.values() for one in sets}
        found = []
        for name in sorted(self._files):
            match = _SET_FILE.fullmatch(name)
            if _TEMPORARY.fullmatch(name) or (match and match[2] not in used):
                found.append(DiskFile(name, self._files[name]))
        return found
