from typing import Any

from typing_extensions import Self

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader

EXISTING: dict[str, int]

class FileExtractor:
    def __new__(cls, image: ImageReader, existing: str = "refuse") -> Self: ...
    @property
    def written(self) -> int: ...
    def stop(self) -> None: ...
    def write(self, directory: int, files: list[tuple[int, bytes]]) -> list[bytes]: ...

class OrdinaryFiles:
    def __new__(cls, image: ImageReader) -> Self: ...
    @property
    def alike(self) -> dict[tuple[int, int, bool, bool], tuple[int, ImageEntry]]: ...
    def take(
        self,
        directory: ImageEntry,
        first_names: dict[int, Any],
        place: object,
        *,
        room: tuple[int, int, int, int],
    ) -> tuple[list[ImageEntry], list[tuple[int, bytes]], int, int]: ...
    def name_of(self, directory: ImageEntry, file_id: int) -> bytes: ...
