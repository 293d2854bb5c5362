from collections.abc import Iterable
from typing import Protocol

from typing_extensions import Buffer, Self

from cimfs_ext.builder import LayerBuilder
from cimfs_ext.image import ImageWriter

class _Handler(Protocol):
    def descriptor_from_sddl(self, text: str) -> bytes: ...
    def whiteout(self, path: str) -> None: ...
    def opaque_whiteout(self, directory: str) -> None: ...
    def begin_standard_file(
        self,
        path: str,
        size: int,
        attributes: int,
        times: tuple[int, int, int, int],
        security_descriptor: bytes,
        extended_attributes: bytes,
    ) -> None: ...
    def standard_data(self, data: memoryview) -> None: ...
    def end_standard_file(self) -> None: ...
    def link_to_standard_file(self, path: str, target: str) -> None: ...

class LayerImporter:
    def __new__(
        cls,
        target: ImageWriter | LayerBuilder,
        handler: _Handler,
        standard_files: Iterable[str] = (),
        *,
        time: int = 0,
        has_parent: bool = False,
        plain: bool = False,
        max_files: int = ...,
        max_bytes: int = ...,
        max_path_depth: int = ...,
    ) -> Self: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def entries(self) -> int: ...
    @property
    def offset(self) -> int: ...
    def feed(self, data: Buffer) -> bool: ...
    def read(self, file: int, offset: int, size: int, buffer: Buffer) -> int: ...
    def finish(self) -> None: ...
