from typing_extensions import Self

from cimfs_ext.reader import ImageReader

KEEP_STAMPS: int
KEEP_DESCRIPTOR: int
KEEP_EAS: int
KEEP_STREAMS: int
KEEP_REPARSE: int

class FileExtractor:
    def __new__(cls, image: ImageReader, keep: int = 0) -> Self: ...
    @property
    def lost(self) -> dict[str, int]: ...
    def stop(self) -> None: ...
    def write(self, directory: int, files: list[tuple[int, bytes]]) -> None: ...
    def write_metadata(self, directory: int, name: bytes, file_id: int) -> None: ...
