"""Streams that are compressed block by block."""

from __future__ import annotations

import gzip
import random
import sys
import threading
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimlayer.blobs import compression
from cimlayer.blobs.compression import Compressor, GzipCompressor, ZstdCompressor

MIB = 1 << 20
DATA = b"".join(b"%d is followed by the next\n" % number for number in range(100_000)) + random.Random(1).randbytes(MIB)


def compressed(compressor: Compressor, data: bytes, cuts: list[int]) -> bytes:
    with compressor:
        pieces = [compressor.compress(data[start:end]) for start, end in pairwise([0, *sorted(cuts), len(data)])]
        return b"".join([*pieces, compressor.flush()])


@settings(max_examples=20)
@given(st.integers(0, len(DATA)), st.lists(st.integers(0, len(DATA)), max_size=5), st.integers(1, 4))
def test_bytes_depend_on_neither_pieces_nor_threads(size: int, cuts: list[int], jobs: int) -> None:
    data = DATA[:size]
    whole = compressed(GzipCompressor(jobs), data, [min(cut, size) for cut in cuts])
    assert whole == compressed(GzipCompressor(1), data, [])
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert reader.decompress(whole) == data
    assert reader.eof and not reader.unused_data  # one member, which all readers take


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB])
def test_sizes_around_blocks(size: int) -> None:
    assert gzip.decompress(compressed(GzipCompressor(2), DATA[:size], [])) == DATA[:size]


def test_pieces_may_be_changed_once_they_were_taken() -> None:
    with GzipCompressor(2) as compressor:
        piece = bytearray(b"before")
        start = compressor.compress(memoryview(piece))
        piece[:] = b"after!"
        assert gzip.decompress(start + compressor.flush()) == b"before"


def test_there_need_be_no_isa_l(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    assert compression._deflater()[1] is zlib.crc32
    assert gzip.decompress(compressed(GzipCompressor(2), DATA, [7])) == DATA


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_fails_leaves_no_thread(error: type[BaseException]) -> None:
    with pytest.raises(error), GzipCompressor(3) as compressor:
        compressor.compress(DATA)
        raise error
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cimlayer-gzip")]


def test_zstd_is_one_frame() -> None:
    assert compressed(ZstdCompressor(), DATA, [5]).startswith(b"\x28\xb5\x2f\xfd")
