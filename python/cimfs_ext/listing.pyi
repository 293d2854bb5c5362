from collections.abc import Iterator
from typing import final

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader

@final
class Children: ...

def walk_below(
    image: ImageReader, directory: str | ImageEntry, path: str, top: int
) -> Iterator[tuple[str, ImageEntry]]: ...
