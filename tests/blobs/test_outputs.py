"""Outputs: what a file does not take at once is offered again."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from cimlayer.blobs.outputs import whole_writes, widen_pipe

DATA = bytes(range(256)) * 3


class Slow(io.RawIOBase):
    """Takes seven bytes at a time; nothing at all once it is blocked."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = bytearray()
        self.blocked = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int | None:
        self.taken += memoryview(data)[:7]
        return None if self.blocked else min(7, len(data))


@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
def test_an_unbuffered_file_gets_everything(convert: Any) -> None:
    file = Slow()
    output = whole_writes(file)  # type: ignore[arg-type]
    for start in range(0, len(DATA), 100):
        output.write(convert(DATA[start : start + 100]))
    assert file.taken == DATA


def test_a_file_that_does_not_wait_is_an_error() -> None:
    file = Slow()
    file.blocked = True
    with pytest.raises(BlockingIOError):
        whole_writes(file).write(DATA)  # type: ignore[arg-type]


def test_a_buffered_file_is_used_as_it_is() -> None:
    file = io.BytesIO()
    assert whole_writes(file) is file


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the size of a pipe")
def test_a_pipe_takes_more_at_once() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb", buffering=0) as file:
        os.set_blocking(writing, False)
        widen_pipe(file)
        widen_pipe(file)
        assert file.write(bytes(1 << 20)) > 1 << 16


def test_only_pipes_are_widened(tmp_path: Path) -> None:
    widen_pipe(io.BytesIO())
    widen_pipe(Slow())  # type: ignore[arg-type]
    with (tmp_path / "file").open("wb") as file:
        widen_pipe(file)
