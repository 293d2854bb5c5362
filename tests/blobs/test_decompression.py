"""Compression by content: every member and frame, and what is said of what is neither."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimlayer.blobs.decompression import check_tar_start
from cimlayer.blobs.streams import LayerStream
from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken
from support.platforms import examples, posix_only
from support.tars import TarBuilder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_BUILDER = TarBuilder()
_BUILDER.file("Files/a", random.Random(1).randbytes(30_000))
TAR = _BUILDER.finish()
SKIPPABLE = b"\x5a\x2a\x4d\x18\x05\0\0\0stuff"


class Trickling(io.RawIOBase):
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__()
        self._data = io.BytesIO(data)
        self._size = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        return self._data.readinto(memoryview(buffer)[: self._size])


def read(data: bytes, size: int = 1 << 30, piece: int = 1 << 19, name: str = "") -> bytes:
    stream = LayerStream(Trickling(data, size), cancel=CancellationToken(), name=name)  # type: ignore[arg-type]
    buffer, whole = memoryview(bytearray(piece)), b""
    while count := stream.readinto(buffer):
        whole += buffer[:count]
    return whole


@pytest.fixture(scope="module", autouse=True, params=["isal", "zlib"])
def library(request: pytest.FixtureRequest) -> Iterator[str]:
    """What gzip is read with: isal does not exist everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "zlib":
            patch.setitem(sys.modules, "isal", None)
        yield request.param


COMPRESS = {"gzip": lambda data: gzip.compress(data, 1), "zstd": zstd.compress}


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("size", [1, 1000, 1 << 30])
@pytest.mark.parametrize("cuts", [[], [0], [1, 2, 3, 512, 10_000], [len(TAR)], list(range(0, len(TAR), 999))])
def test_all_members_are_read(form: str, size: int, cuts: list[int]) -> None:
    ends = [*cuts, len(TAR)]
    parts = [TAR[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert read(b"".join(map(COMPRESS[form], parts)), size) == TAR


@settings(deadline=None, max_examples=examples(40))
@given(
    cuts=st.lists(st.integers(0, len(TAR)), max_size=6),
    form=st.sampled_from(sorted(COMPRESS)),
    size=st.integers(1, 40_000),
)
def test_members_of_any_size_in_pieces_of_any_size(cuts: list[int], form: str, size: int) -> None:
    ends = [*sorted(cuts), len(TAR)]
    parts = [TAR[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert read(b"".join(map(COMPRESS[form], parts)), size, piece=4096 + size) == TAR


@pytest.mark.parametrize("size", [1, 1 << 30])
def test_skippable_frames_are_skipped(size: int) -> None:
    half = len(TAR) // 2
    data = SKIPPABLE + zstd.compress(TAR[:half]) + SKIPPABLE * 3 + zstd.compress(TAR[half:]) + SKIPPABLE
    assert read(data, size) == TAR


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("size", [1, 1 << 30])
@pytest.mark.parametrize("zeros", [1, 511, 200_000])
def test_zeros_behind_the_last_member_are_padding(form: str, size: int, zeros: int) -> None:
    zeros = min(zeros, 1000 * size)
    assert read(COMPRESS[form](TAR) + bytes(zeros), size) == TAR


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("size", [1, 1 << 30])
@pytest.mark.parametrize("behind", [b"\n", b"\0\0\n", b"\x1f", b"\x28\xb5", b"not one of ours", bytes(140_000) + b"x"])
def test_something_else_behind_the_last_member_is_refused_with_its_offset(form: str, size: int, behind: bytes) -> None:
    behind = behind[-1000 * size :]
    data = COMPRESS[form](TAR[:1000]) + COMPRESS[form](TAR[1000:])
    with pytest.raises(FormatError, match=f"^a.tar.gz: something else is behind the last {form}") as caught:
        read(data + behind, size, name="a.tar.gz")
    assert caught.value.offset == len(data) + len(behind) - len(behind.lstrip(b"\0"))


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("cut", [5, 20, 1000, 20_000, -9, -1])
def test_a_cut_stream_is_refused(form: str, cut: int) -> None:
    data = COMPRESS[form](TAR)[:cut]
    with pytest.raises(FormatError, match=f"the {form} stream is cut inside") as caught:
        read(data)
    assert caught.value.offset == len(data)


@pytest.mark.parametrize("form", COMPRESS)
def test_a_damaged_stream_is_refused(form: str) -> None:
    data = bytearray(COMPRESS[form](bytes(range(256)) * 4000))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(FormatError, match=f"^the file: (the {form} stream is|something else|not a tar)"):
        read(bytes(data), name="the file")


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", TAR)
    return file.getvalue()


OTHERS = {
    "xz": lzma.compress(TAR),
    "lzma": lzma.compress(TAR, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress(TAR),
    "lz4": b"\x04\x22\x4d\x18" + bytes(1000),
    "zip": zipped(),
    "gzip, compressed twice": gzip.compress(gzip.compress(TAR)),
    "zstd, compressed twice": zstd.compress(zstd.compress(TAR)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_forms_are_refused_by_name(kind: str) -> None:
    with pytest.raises(FormatError, match=f"^layer.bin: not a tar: {kind}$"):
        read(OTHERS[kind], name="layer.bin")


@pytest.mark.parametrize(
    "data", [b"x", b"not a tar" * 100, random.Random(2).randbytes(2000), b"{}", b"MZ" + bytes(1000)]
)
@pytest.mark.parametrize("compress", [bytes, *COMPRESS.values()])
def test_what_is_no_tar_is_refused_with_the_name_of_its_file(data: bytes, compress: type[bytes]) -> None:
    with pytest.raises(FormatError, match=r"^a file: not a tar(: it ends inside an entry .at offset [0-9]+.)?$"):
        read(compress(data), name="a file")


@pytest.mark.parametrize("name", ["BZh9", "PK\3\4", "LZIP", "]\0\0"])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_whose_first_name_looks_like_another_form_is_a_tar(name: str, format: int) -> None:
    check_tar_start(tarfile.TarInfo(name).tobuf(format))


def test_old_tars_have_a_checksum_alone() -> None:
    header = bytearray(tarfile.TarInfo("a\xff").tobuf(tarfile.USTAR_FORMAT, "latin-1"))
    header[257:265] = bytes(8)
    header[148:156] = b" " * 8
    for total in (sum(header), sum(header) - 256 * sum(byte > 127 for byte in header)):
        header[148:156] = b"%06o\0 " % total
        check_tar_start(bytes(header))
    header[148:156] = b"%06o\0 " % 1
    with pytest.raises(FormatError, match="not a tar"):
        check_tar_start(bytes(header))


@pytest.mark.parametrize("data", [b"", bytes(512), bytes(10240)])
def test_a_tar_of_nothing_is_left_to_whoever_reads_it(data: bytes) -> None:
    assert read(data) == data
    assert read(gzip.compress(data)) == data


_READS = """
import resource, sys
from cimlayer.blobs.streams import LayerStream
from cimlayer.events import CancellationToken

if sys.argv[2] == "zlib":
    sys.modules["isal"] = None

buffer = memoryview(bytearray(1 << 19))
with open(sys.argv[1], "rb", buffering=0) as file:
    stream = LayerStream(file, cancel=CancellationToken())
    stream.readinto(buffer)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    while stream.readinto(buffer):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@posix_only("memory is measured with getrusage")
@pytest.mark.parametrize("threshold", [None, "65536"])  # what dask sets for its workers
def test_pieces_do_not_take_new_memory_each_time(library: str, threshold: str | None, tmp_path: Path) -> None:
    pages = 5000
    file = tmp_path / "a.tar.gz"
    file.write_bytes(gzip.compress(bytes(pages * 4096), 1))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    if threshold is not None:
        environ["MALLOC_TRIM_THRESHOLD_"] = threshold
    program = [sys.executable, "-c", _READS, str(file), library]
    done = subprocess.run(program, check=True, capture_output=True, env=environ)
    assert int(done.stdout) < pages // 5
