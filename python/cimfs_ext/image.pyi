from os import PathLike
from pathlib import PurePath
from types import TracebackType

from typing_extensions import Buffer, Self

from cimfs_ext.implementation import Implementation

class ImageWriter:
    directory: str
    name: str
    def __new__(
        cls,
        directory: str | PathLike[str],
        existing_name: str | None = None,
        new_name: str | None = None,
        *,
        flags: int = 0,
        implementation: str | Implementation | None = None,
        sync: bool = True,
        time: int = 0,
        seed: bytes | None = None,
    ) -> Self: ...
    @property
    def implementation(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    @property
    def committed(self) -> bool: ...
    def create_file(
        self,
        path: str | PurePath,
        *,
        attributes: int = 0,
        size: int = 0,
        creation_time: int = 0,
        last_write_time: int = 0,
        change_time: int = 0,
        last_access_time: int = 0,
        security_descriptor: Buffer = b"",
        reparse_data: Buffer = b"",
        extended_attributes: Buffer = b"",
    ) -> None: ...
    def create_alternate_stream(self, path: str | PurePath, size: int) -> None: ...
    def write(self, data: Buffer) -> int: ...
    def close_stream(self) -> None: ...
    def create_hard_link(self, new_path: str | PurePath, existing_path: str | PurePath) -> None: ...
    def delete_path(self, path: str | PurePath) -> None: ...
    def tombstone(self, path: str | PurePath) -> None: ...
    def create_merge_link(self, new_path: str | PurePath, existing_path: str | PurePath) -> None: ...
    def add_to_merged_image(self, image_path: str | PathLike[str], *, flags: int = 0) -> None: ...
    def commit(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> ImageWriter: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
