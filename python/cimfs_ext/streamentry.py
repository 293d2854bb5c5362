"""What a reader says of alternate streams. Few files have any, and making a dataclass takes a millisecond."""

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class StreamEntry:
    """An alternate stream: its bare name and its size in bytes."""

    __module__ = "cimlayer"

    name: str
    size: int
