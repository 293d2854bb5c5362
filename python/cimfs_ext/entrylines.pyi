from collections.abc import Callable
from typing import Literal, final

from typing_extensions import Self

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader

@final
class EntryLines:
    def __new__(
        cls,
        image: ImageReader,
        form: Literal["name", "target", "long", "json"],
        *,
        write: Callable[[str], object],
        attributes: Callable[[int], str],
        target: Callable[[ImageEntry], str | None],
        size: Callable[[int], str] | None = None,
        show: Callable[[str, str], str] | None = None,
    ) -> Self: ...
    def add(self, name: str, entry: ImageEntry, before: str = "", *, target: bool = True) -> None: ...
    def add_below(self, path: str, *, recursive: bool) -> None: ...
    def flush(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
