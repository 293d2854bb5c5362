"""The content ID of objects, by size, beside the hashes that others use."""

import hashlib
import random
from collections.abc import Callable
from typing import Any

import pytest
import xxhash
from pytest_benchmark.fixture import BenchmarkFixture

from cimfs_ext.contentid import content_id

HASHES: dict[str, Callable[[bytes], Any]] = {
    "cimlayer": content_id,
    "xxhash": xxhash.xxh3_128_digest,
    "sha256": hashlib.sha256,
}


@pytest.mark.parametrize("size", [16, 240, 4096, 1 << 20, 16 << 20])
@pytest.mark.parametrize("name", HASHES)
def test_hash(benchmark: BenchmarkFixture, name: str, size: int) -> None:
    benchmark.group = f"hash of {size:,} bytes"
    benchmark.extra_info["bytes"] = size
    benchmark(HASHES[name], random.Random(size).randbytes(size))
