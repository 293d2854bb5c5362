from collections.abc import Callable

from typing_extensions import Self

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader

class MountedFiles:
    names: int
    def __new__(
        cls,
        image: ImageReader,
        target: Callable[[bytes, int], str | None],
        *,
        max_names: int,
        owner: int,
        group: int,
    ) -> Self: ...
    def entry(self, node: int) -> ImageEntry: ...
    def attributes(self, node: int) -> bytes: ...
    def readlink(self, node: int) -> bytes: ...
    def lookup(self, parent: int, name: bytes) -> bytes: ...
    def children(self, node: int) -> list[tuple[str, int]]: ...
    def read_directory(self, node: int, offset: int, size: int, *, plus: bool) -> bytes: ...
