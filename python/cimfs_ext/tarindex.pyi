from collections.abc import Iterator
from typing import BinaryIO

from typing_extensions import Self

FILE: int
DIRECTORY: int
SYMLINK: int
HARD_LINK: int

class TarIndex(Iterator[tuple[int, str, str, int, int]]):
    def __new__(cls, file: BinaryIO, what: str) -> Self: ...
    def __next__(self) -> tuple[int, str, str, int, int]: ...
