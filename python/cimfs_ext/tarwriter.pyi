from collections.abc import Callable
from mmap import mmap
from typing import final

from typing_extensions import Buffer, Self

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader

@final
class TarStream:
    @property
    def entries(self) -> int: ...
    @property
    def content_bytes(self) -> int: ...
    def __new__(
        cls,
        image: ImageReader,
        buffers: list[mmap],
        *,
        write: Callable[[memoryview], object],
        step: Callable[[int, int], object],
    ) -> Self: ...
    def put(self, data: Buffer) -> None: ...
    def put_header(self, header: Buffer) -> None: ...
    def put_content(self, entry: ImageEntry, stream: str | None = None) -> None: ...
    def flush(self) -> None: ...
    def add(self, path: str, entry: ImageEntry, room: int) -> bool: ...
    def begin(self, left_out: set[int]) -> None: ...
    def add_more(self, room: int) -> tuple[int, tuple[str, ImageEntry] | None]: ...

def survey(
    image: ImageReader,
    look: Callable[[int, str, str], int],
    go_on: Callable[[], object],
    *,
    room: int,
    depth: int,
) -> tuple[int, set[int]]: ...
