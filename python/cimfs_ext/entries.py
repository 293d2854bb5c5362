"""What a reader says of the things in an image."""

from dataclasses import dataclass
from uuid import UUID

FILE_ATTRIBUTE_DIRECTORY = 0x10
FILE_ATTRIBUTE_REPARSE_POINT = 0x400


@dataclass(slots=True, frozen=True)
class ImageEntry:
    """A file or directory under one of its names.

    Times are FILETIMEs: units of 100 ns since 1601-01-01 UTC. ``size`` is in bytes, 0 for a directory. Files with
    equal ``file_id`` are hard links of each other. ``attributes`` are the FILE_ATTRIBUTE bits that the format keeps
    (cim-format, "File record").
    """

    __module__ = "cimlayer"

    name: str
    file_id: int
    attributes: int
    size: int
    creation_time: int
    last_write_time: int
    change_time: int
    last_access_time: int
    reparse_tag: int
    parent_id: int
    sparse: bool

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory, a reparse point or not."""
        return bool(self.attributes & FILE_ATTRIBUTE_DIRECTORY)

    @property
    def is_reparse_point(self) -> bool:
        """Whether reparse data is attached: a symbolic link, a mount point, ..."""
        return bool(self.attributes & FILE_ATTRIBUTE_REPARSE_POINT)


@dataclass(slots=True, frozen=True)
class StreamEntry:
    """An alternate stream: its bare name and its size in bytes."""

    __module__ = "cimlayer"

    name: str
    size: int


@dataclass(slots=True, frozen=True)
class RegionSet:
    """A set of region files, in the order of the image's region list; the image's own set stands last."""

    __module__ = "cimlayer"

    set_id: UUID
    count: int

    def file_names(self) -> list[str]:
        """The region and object ID files of this set."""
        return [f"{kind}_{self.set_id}_{n}" for kind in ("region", "objectid") for n in range(self.count)]


@dataclass(slots=True, frozen=True)
class Problem:
    """One thing that :meth:`ImageReader.verify` found wrong: where, and what."""

    __module__ = "cimlayer"

    file: str
    offset: int | None
    reason: str
    region_offset: int

    def __str__(self) -> str:
        """The problem in one line."""
        where = f" at offset {self.offset}" if self.offset is not None else ""
        return f"{self.file}{where}: {self.reason}"


@dataclass(slots=True, frozen=True)
class VerifyReport:
    """What :meth:`ImageReader.verify` looked at. ``unjudged`` objects have no content ID of ours."""

    __module__ = "cimlayer"

    files: int
    directories: int
    streams: int
    objects: int
    bytes: int
    unjudged: int
    problem_count: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return self.problem_count == 0
