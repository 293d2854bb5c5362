"""XXH3-128, against the reference implementation's Python binding."""

import ctypes
import random
import subprocess
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimfs_ext.contentid import ContentHash, content_id
from support import ROOT
from support.libraries import c_compiler

xxhash = pytest.importorskip("xxhash")

SOURCE = ROOT / "cimfs_ext" / "libcimfs" / "contentid.c"
NOISE = random.Random(3).randbytes(300_000)
LARGE = [4095, 4096, 4097, 65_535, 65_536, 65_537, 131_072, 262_144, 299_999, 300_000]


# What the same source becomes elsewhere: without GNU extensions, and on processors that have that much and no more.
BUILDS = {
    "scalar": ("-DCIMFS_PLAIN_C", ""),
    "sse2": ("-D__builtin_cpu_supports(name)=0", ""),
    "avx2": ('-D__builtin_cpu_supports(name)=(sizeof(name) == sizeof("avx2"))', "avx2"),
    "avx512": ("-D__builtin_cpu_supports(name)=1", "avx512f"),
}


@pytest.fixture(params=BUILDS)
def other_build(request: pytest.FixtureRequest, tmp_path: Path) -> ctypes.CDLL:
    flag, needed = BUILDS[request.param]
    if needed and needed not in processor_flags():
        pytest.skip(f"this processor has no {needed}")
    library = tmp_path / "contentid.so"
    flags = ["-std=c11", "-O1", flag, "-fPIC", "-shared"]
    subprocess.run([c_compiler(), *flags, str(SOURCE), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def processor_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text("utf-8").split()) if cpuinfo.exists() else set()


def test_every_short_length_has_the_reference_digest() -> None:
    for size in range(2101):
        assert content_id(NOISE[:size]) == xxhash.xxh3_128_digest(NOISE[:size]), size


@pytest.mark.parametrize("size", LARGE)
def test_large_input_has_the_reference_digest(size: int) -> None:
    assert content_id(NOISE[:size]) == xxhash.xxh3_128_digest(NOISE[:size])


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_uniform_input_has_the_reference_digest(fill: bytes) -> None:
    for size in [*range(0, 1200, 7), 100_000]:
        assert content_id(fill * size) == xxhash.xxh3_128_digest(fill * size), size


def test_other_builds_have_the_reference_digest(other_build: ctypes.CDLL) -> None:
    digest = ctypes.create_string_buffer(16)
    for size in [*range(2101), *LARGE]:
        other_build.cimfs_hash_of(NOISE, ctypes.c_size_t(size), digest)
        assert digest.raw == xxhash.xxh3_128_digest(NOISE[:size]), size


@given(st.lists(st.one_of(st.integers(0, 400), st.integers(0, 5000)), max_size=40))
def test_digest_does_not_depend_on_the_chunking(sizes: list[int]) -> None:
    ours = ContentHash()
    reference = xxhash.xxh3_128()
    start = 0
    for size in sizes:
        ours.update(NOISE[start : start + size])
        reference.update(NOISE[start : start + size])
        start += size
    assert ours.digest() == reference.digest() == content_id(NOISE[:start])


@given(st.integers(1, 600), st.integers(0, 600))
def test_input_can_be_cut_anywhere(first: int, second: int) -> None:
    ours = ContentHash()
    ours.update(NOISE[:first])
    ours.update(NOISE[first : first + second])
    assert ours.digest() == xxhash.xxh3_128_digest(NOISE[: first + second])


def test_one_byte_at_a_time_gives_every_prefix_its_digest() -> None:
    ours = ContentHash()
    for size in range(1, 2101):
        ours.update(NOISE[size - 1 : size])
        assert ours.digest() == xxhash.xxh3_128_digest(NOISE[:size]), size


@pytest.mark.parametrize("offset", range(1, 16))
def test_unaligned_input_has_the_reference_digest(offset: int) -> None:
    assert content_id(memoryview(NOISE)[offset:5000]) == xxhash.xxh3_128_digest(NOISE[offset:5000])


def test_any_contiguous_buffer_is_taken() -> None:
    words = array("I", range(1000))
    assert content_id(words) == content_id(words.tobytes())
    stream = ContentHash()
    stream.update(words)
    assert stream.digest() == content_id(bytearray(words.tobytes()))


def test_text_and_strided_buffers_are_refused() -> None:
    with pytest.raises(TypeError):
        content_id("text")
    with pytest.raises(TypeError):
        content_id(memoryview(NOISE)[::2])
