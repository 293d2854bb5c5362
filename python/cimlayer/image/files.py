"""The files of an image directory, and which images they belong to."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cimfs_ext.regionsets import read_region_sets
from cimlayer.errors import ImageError

if TYPE_CHECKING:
    from uuid import UUID

    from cimfs_ext.reports import RegionSet

_GUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Compiled when they are first needed: most commands need neither.
_SET_FILE = f"(region|objectid)_({_GUID})_[0-9]+"
_TEMPORARY = f"image_{_GUID}_[0-9]+|objectid_{_GUID}_[0-9]+\\.tmp"
_NO_FILE = (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO)  # gone, a link, a directory, a socket
_MAGIC, _FILE_TYPE = b"cimfile0", 12  # of the common header: the file type is 0 in the .cim file alone


def set_ids(image_path: Path) -> list[UUID]:
    """The IDs of the image's own region set, its parent's, and so on to the base."""
    return [one.set_id for one in reversed(read_region_sets(image_path))]


def set_of(file_name: str) -> str:
    """The GUID in the name of a region file, an object ID file or a draft; empty for that of an image."""
    return file_name.partition("_")[2].partition("_")[0]


@dataclass(slots=True, frozen=True)
class DiskFile:
    """A file of an image directory. ``size`` is in bytes, None if the file is missing."""

    name: str
    size: int | None


def may_be_image(path: Path) -> bool:
    """Whether a file's name or, since any other name will do, its first bytes say that it is an image.

    One that cannot be read may be: whoever has to know what it refers to gets its error.
    """
    if path.name.lower().endswith(".cim"):
        return True
    if re.fullmatch(_SET_FILE, path.name) or re.fullmatch(_TEMPORARY, path.name):
        return False
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            header = file.read(_FILE_TYPE + 1)
    except OSError as error:
        return error.errno not in _NO_FILE
    return header.startswith(_MAGIC) and header.endswith(b"\0") and len(header) > _FILE_TYPE


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


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
            if may_be_image(self.path / name):
                self._read(name)

    def _read(self, name: str) -> None:
        try:
            self.region_sets[name] = read_region_sets(self.path / name)
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

    def missing(self, name: str) -> list[str]:
        """The region files that an image refers to and that are not there: without them it cannot be read."""
        regions = [file for one in self.region_sets[name] for file in one.file_names() if file.startswith("region_")]
        return [file for file in regions if file not in self._files and not (self.path / file).exists()]

    def orphans(self) -> list[DiskFile]:
        """Region and object ID files of sets that no readable image refers to, and temporary files.

        Those of an image that is being written are among them.
        """
        used = {str(one.set_id) for sets in self.region_sets.values() for one in sets}
        found = []
        for name in sorted(self._files):
            match = re.fullmatch(_SET_FILE, name)
            if re.fullmatch(_TEMPORARY, name) or (match and match[2] not in used):
                found.append(DiskFile(name, self._files[name]))
        return found
