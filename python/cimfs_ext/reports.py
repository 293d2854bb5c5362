"""What a reader says of an image as a whole."""

from dataclasses import dataclass
from uuid import UUID


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
