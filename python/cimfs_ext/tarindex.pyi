from collections.abc import Iterator
from typing import BinaryIO

FILE: int
DIRECTORY: int
SYMLINK: int
HARD_LINK: int

class TarIndex(Iterator[tuple[int, str, str, int, int]]):
    def __init__(self, file: BinaryIO, what: str) -> None: ...
    def __next__(self) -> tuple[int, str, str, int, int]: ...
