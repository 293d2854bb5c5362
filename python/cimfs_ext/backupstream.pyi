from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from typing_extensions import Buffer, Self

_Event: TypeAlias = (
    tuple[Literal["attachment"], int, bytes]
    | tuple[Literal["data"], memoryview]
    | tuple[Literal["zeros"], int]
    | tuple[Literal["stream"], str, int | None]
)

class BackupStreamParser:
    def __new__(cls, file_size: int, what: str) -> Self: ...
    @property
    def offset(self) -> int: ...
    def feed(self, data: Buffer) -> list[_Event]: ...
    def finish(self) -> None: ...

class BackupStreamWriter:
    @staticmethod
    def extended_attributes(data: bytes) -> Iterator[Buffer]: ...
    @staticmethod
    def security(descriptor: bytes) -> Iterator[Buffer]: ...
    @staticmethod
    def reparse(data: bytes) -> Iterator[Buffer]: ...
    @staticmethod
    def links(*names: str) -> Iterator[Buffer]: ...
    @staticmethod
    def data(content: Buffer | Iterable[Buffer], size: int | None = None) -> Iterator[Buffer]: ...
    @staticmethod
    def sparse_data(size: int, ranges: Iterable[tuple[int, Buffer]]) -> Iterator[Buffer]: ...
    @staticmethod
    def alternate_stream(
        name: str, content: Buffer | Iterable[Buffer], size: int | None = None
    ) -> Iterator[Buffer]: ...
    @staticmethod
    def sparse_alternate_stream(
        name: str, size: int, ranges: Iterable[tuple[int, Buffer]]
    ) -> Iterator[Buffer]: ...
