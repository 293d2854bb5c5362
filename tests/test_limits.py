"""Limits, and what each shape of untrusted input costs: the limits one by one, decompression, the command line."""

from __future__ import annotations

import gzip
import io
import pickle
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimlayer import Limits
from cimlayer.errors import FormatError, LimitError
from cimlayer.limits import UNJUDGED
from support import tars
from support.commands import call
from support.containers import OCI_LAYER, Layer, Store, base_tar, child_tar, gzipped, packed, plain

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd
from support.limited import (
    END,
    MIB,
    cim,
    layer,  # noqa: F401  fixtures
    tar_of,
    tree_of,
)


def refused(root: Path, source: Any, limits: Limits, *, jobs: int = 2, **more: Any) -> LimitError:
    """The error of an import as a base layer, which leaves nothing."""
    with pytest.raises(LimitError) as caught:
        cimlayer.import_layer(source, root / "layer", sync=False, limits=limits, jobs=jobs, **more)
    assert list(root.iterdir()) == []
    return caught.value


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "layers").mkdir()
    return tmp_path / "layers"


# ---- Limits and LimitError ----


def test_limits_are_finite_and_frozen() -> None:
    assert Limits() == Limits(files=1 << 22, bytes=1 << 40, path_depth=1024, ratio=1100)
    with pytest.raises(FrozenInstanceError):
        Limits().files = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", ["files", "bytes", "path_depth", "ratio"])
@pytest.mark.parametrize("value", [0, -1, 1 << 63, 1.5, "7", None, True])
def test_what_is_no_limit_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})
    assert getattr(Limits(**{name: (1 << 63) - 1}), name) == (1 << 63) - 1


def test_limit_error_survives_a_process_pool() -> None:
    error = LimitError("bytes", 5, "Files/x", 512, "base")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "layer base: Files/x: too many bytes: the limit of bytes is 5 (at offset 512)"
    names = ("limit", "value", "entry", "offset", "layer", "what", "reason")
    assert [getattr(copy, name) for name in names] == [getattr(error, name) for name in names]


# ---- an import, limit by limit ----


LARGEST = (1 << 63) - 1025  # bytes, and a block behind them: what a tar can claim at most


# What is imported, the limits, and the entry that is refused with its offset.
BEYOND: dict[str, tuple[bytes, Limits, str, str, int]] = {
    "one file more": (tar_of(*(("file", f"f{n}") for n in range(9))), Limits(files=8), "files", "f8", 8 * 512),
    "whiteouts": (tar_of(("whiteout", "a"), ("opaque", "b")), Limits(files=1), "files", "b/.wh..wh..opq", 512),
    "streams": (tar_of(("file", "a"), ("stream", "a", "s")), Limits(files=1), "files", "a:s", 512),
    "hard links": (tar_of(("file", "a"), ("hardlink", "b", "a")), Limits(files=1), "files", "b", 512),
    "names that are nothing": (tars.header(b"./", 0, tars.DIRECTORY) * 3 + END, Limits(files=2), "files", "./", 1024),
    "one name again": (tar_of(("file", "a"), ("file", "a")), Limits(files=1), "files", "a", 512),
    "directories nobody named": (tar_of(("file", "a/b/c/d")), Limits(files=3), "files", "a/b/c/d", 0),
    "a byte more": (tar_of(("file", "a", b"12"), ("file", "b", b"34")), Limits(bytes=3), "bytes", "b", 1024),
    "of a stream": (tar_of(("file", "a", b"1"), ("stream", "a", "s", b"3")), Limits(bytes=1), "bytes", "a:s", 1024),
    "a whiteout's bytes": (tar_of(("file", ".wh.a", b"12")), Limits(bytes=1), "bytes", ".wh.a", 0),
    "a claim": (tars.header(b"a", 1 << 41), Limits(), "bytes", "a", 0),
    "a claim of 8 EiB": (tars.header(b"a", LARGEST), Limits(), "bytes", "a", 0),
    "a hive's claim": (tars.header(b"Files/Windows/System32/config/SAM", 1 << 41), Limits(), "bytes", "", 0),
    "sums that would wrap": (
        tar_of(("file", "a", b"1")) [:1024] + tars.header(b"b", LARGEST), Limits(bytes=LARGEST), "bytes", "b", 1024
    ),
    "deeper": (tar_of(("file", "a/b/c/d")), Limits(path_depth=3), "path_depth", "a/b/c/d", 0),
    "a deep target": (tar_of(("hardlink", "a", "a/b/c/d")), Limits(path_depth=3), "path_depth", "a", 0),
    "a deep whiteout": (tar_of(("whiteout", "a/b/c/d")), Limits(path_depth=3), "path_depth", "a/b/c/.wh.d", 0),
}  # fmt: skip


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("case", BEYOND)
def test_what_goes_beyond_a_limit_is_named_and_leaves_nothing(root: Path, case: str, jobs: int) -> None:
    tar, limits, limit, entry, offset = BEYOND[case]
    error = refused(root, io.BytesIO(tar), limits, jobs=jobs)
    assert (error.limit, error.value, error.offset) == (limit, getattr(limits, limit), offset)
    assert error.layer == "layer"
    if entry:
        assert error.entry == entry
    assert f"the limit of {limit} is {error.value}" in str(error)


def test_what_fills_the_limits_exactly_is_taken(tmp_path: Path) -> None:
    tar = tar_of(("file", "a/b/c", b"12345"), ("stream", "a/b/c", "s", b"678"), ("hardlink", "a/l", "a/b/c"))
    exact = Limits(files=5, bytes=8, path_depth=3)
    content = {"a": None, "a\\b": None, "a\\b\\c": b"12345", "a\\b\\c:s": b"678", "a\\l": b"12345", "a\\l:s": b"678"}
    assert tree_of(tmp_path, tar, exact) == content
    for name in ("files", "bytes", "path_depth"):
        with pytest.raises(LimitError, match=name):
            tree_of(tmp_path / name, tar, replace(exact, **{name: getattr(exact, name) - 1}))


def test_nothing_behind_a_refused_header_is_read(root: Path) -> None:
    class Endless(io.RawIOBase):
        """A header that claims 2 TiB, and zeros for ever."""

        header = tars.header(b"a", 2 << 40)
        taken = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any, /) -> int:
            buffer[:] = self.header[self.taken : self.taken + len(buffer)].ljust(len(buffer), b"\0")
            self.taken += len(buffer)
            return len(buffer)

    source = Endless()
    refused(root, source, Limits(), digest=f"sha256:{'0' * 64}")
    assert source.taken < 16 * MIB


def test_layers_of_an_image_have_the_limits_each_for_itself(tmp_path: Path) -> None:
    store = Store()
    layers = [gzipped(base_tar()), plain(child_tar(a=b"1", b=b"2", c=b"3")), plain(child_tar(a=b"12345"))]
    source = store.layout(tmp_path / "source", [store.image(layers)])
    base_bytes = sum(len(data or b"") for data in tree_of(tmp_path, layers[0].tar).values())
    limits = Limits(files=5, bytes=base_bytes)
    assert len(cimlayer.import_image(source, tmp_path / "all", sync=False, limits=limits).layers) == 3
    with pytest.raises(LimitError) as caught:
        cimlayer.import_image(source, tmp_path / "some", sync=False, limits=Limits(files=4))
    assert caught.value.layer == layers[0].digest
    assert not (tmp_path / "some").exists()


# ---- decompression ----


def gzip_zeros(size: int) -> bytes:
    """Zeros in gzip members, each 16 MiB."""
    return gzip.compress(bytes(16 * MIB), 9) * (size // (16 * MIB))


def zstd_zeros(size: int) -> bytes:
    """Zeros in one frame: 30,000 bytes for each."""
    compressor = zstd.ZstdCompressor()
    piece = bytes(16 * MIB)
    return b"".join(compressor.compress(piece) for _ in range(size // len(piece))) + compressor.flush()


def bomb(compress: Callable[[int], bytes], name: bytes = b"Files/zeros") -> bytes:
    """256 MiB of zeros in a file; the tar does not end."""
    head = tars.header(name, 1 << 30)
    pack = gzip.compress if compress is gzip_zeros else zstd.compress
    return pack(head) + compress(256 * MIB)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(("compress", "limits"), [(zstd_zeros, Limits()), (gzip_zeros, Limits(ratio=500))])
def test_decompression_bombs_are_refused_by_their_ratio(
    root: Path, compress: Callable[[int], bytes], limits: Limits, jobs: int
) -> None:
    blob = bomb(compress)
    assert len(blob) < MIB
    error = refused(root, io.BytesIO(blob), limits, jobs=jobs, digest=f"sha256:{'0' * 64}")
    assert (error.limit, error.value, error.entry) == ("ratio", limits.ratio, "")
    assert UNJUDGED < error.offset < (UNJUDGED if compress is zstd_zeros else 500 * len(blob)) + MIB


def test_the_rest_of_a_malformed_layer_is_bounded_too_and_the_layer_named(root: Path) -> None:
    blob = gzip.compress(tars.header(b"/absolute", 0)) + gzip_zeros(UNJUDGED + 8 * MIB)
    error = refused(root, io.BytesIO(blob), Limits(ratio=10), digest=f"sha256:{'0' * 64}")
    assert (error.limit, error.layer) == ("ratio", f"sha256:{'0' * 64}")


def test_no_gzip_is_refused_by_the_default_ratio(root: Path) -> None:
    error = refused(root, io.BytesIO(bomb(gzip_zeros)), Limits(bytes=256 * MIB))
    assert (error.limit, error.offset) == ("bytes", 0)  # as its header claims
    blob = gzip.compress(tars.header(b"Files/zeros", 256 * MIB)) + gzip_zeros(256 * MIB)
    with pytest.raises(FormatError, match="a base layer without"):  # all of it was taken, but it is no base layer
        cimlayer.import_layer(io.BytesIO(blob), root / "layer", sync=False)


@pytest.mark.parametrize("pack", [lambda folder: folder, lambda folder: packed(folder, folder.with_suffix(".tar"))])
def test_a_bomb_inside_an_image_is_refused_with_its_digest(tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    zeros = bomb(zstd_zeros)
    evil = Layer(child_tar(), zeros, f"{OCI_LAYER}+zstd")
    base = gzipped(base_tar())
    store = Store()
    source = pack(store.layout(tmp_path / "source", [store.image([base, evil])]))
    with pytest.raises(LimitError, match="ratio") as caught:
        cimlayer.import_image(source, tmp_path / "out", sync=False)
    assert caught.value.layer == evil.digest
    below = base.diff_id.partition(":")[2]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {below, "cim-layers"}
    assert {path.suffix for path in (tmp_path / "out" / "cim-layers").iterdir()} == {".cim", ""}
    with cimlayer.ImageReader(tmp_path / "out" / "cim-layers" / f"{below}.cim") as image:
        assert image.verify().ok


@pytest.mark.parametrize("where", ["behind the end", "records"])
def test_what_is_no_content_is_bounded_too(root: Path, where: str) -> None:
    record = tars.pax_record("comment", "c" * (4 * MIB))
    nothing = tars.header(b"x", len(record), tars.PAX_GLOBAL) + tars.padded(record)
    blob = gzip.compress(END) + gzip_zeros(96 * MIB) if where == "behind the end" else gzip.compress(nothing, 1) * 24
    error = refused(root, io.BytesIO(blob), Limits(files=100, bytes=MIB))
    assert error.limit == "bytes"
    assert UNJUDGED < error.offset < UNJUDGED + 4 * MIB


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * MIB, "gzip"),  # a name that does not end
        (b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(100), "zstd"),  # a window of 2 GiB
    ],
)
def test_memory_that_compressed_streams_ask_for_is_refused(root: Path, blob: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        cimlayer.import_layer(io.BytesIO(blob), root / "layer", sync=False)
    assert list(root.iterdir()) == []


# ---- the command line ----


def test_commands_take_limits(layer: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(("file", "Files/a", bytes(3000))))
    store = Store()
    source = store.layout(tmp_path / "source", [store.image([plain(tar_of(("file", "Files/a", bytes(3000))))])])
    for arguments in (
        ("import", tmp_path / "a.tar", tmp_path / "1"),
        ("import-image", source, tmp_path / "2"),
        ("create", tmp_path / "3.cim", tmp_path / "a.tar"),
        ("extract", cim(layer), tmp_path / "4"),
        ("export", layer, "-o", tmp_path / "5"),
    ):
        result = call(*arguments, "--limit", "files=100", "--limit", "bytes=2K")
        assert result.exit_code == 1
        assert "too many bytes: the limit of bytes is 2048" in result.stderr


@pytest.mark.parametrize(
    "text", ["=", "bytes", "bytes=", "bytes=1X", "files=1K", "bytes=-1", "files=0", "size=1", f"ratio={1 << 63}"]
)
def test_what_is_no_limit_is_a_wrong_call(tmp_path: Path, text: str) -> None:
    result = call("import", tmp_path / "a.tar", tmp_path / "1", "--limit", text)
    assert result.exit_code == 2
    assert "--limit" in result.stderr


def test_error_about_a_very_long_name_leaves_out_its_middle() -> None:
    name = "a" * 300 + "b" * 30_000 + "c" * 300
    error = FormatError("bad", name, 7)
    assert error.what == name
    assert str(error) == f"{'a' * 200}[30200 more]{'c' * 200}: bad (at offset 7)"
