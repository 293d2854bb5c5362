import io
from typing import Protocol

from typing_extensions import Buffer

class _Cursor(Protocol):
    @property
    def size(self) -> int: ...
    def read_at(self, position: int, buffer: Buffer) -> int: ...

class StreamReader(io.RawIOBase):
    def __init__(self, cursor: _Cursor) -> None: ...
    @property
    def size(self) -> int: ...
