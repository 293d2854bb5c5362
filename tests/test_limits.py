"""What hostile input may cost: each shape has its result, in bounded time and memory (docs/threat-model.md)."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimfs_ext.image import ImageWriter
from cimlayer import Limits
from cimlayer.errors import FormatError, LimitError
from cimlayer.events import CancellationToken
from cimlayer.limits import UNJUDGED
from cimlayer.oci.files import TarArchive
from cimlayer.oci.locations import opened_source
from cimlayer.oci.platforms import WINDOWS, Platform
from cimlayer.oci.selection import MOST_IMAGES, select
from support import tars
from support.cimbytes import LINKS, Builder, link_table, stream
from support.commands import call, cpu_time_below
from support.containers import OCI_LAYER, Layer, Store, base_tar, child_tar, gzipped, packed, plain
from support.containers import tar_of as tar_of_files
from support.image_layers import bare_layer
from support.images import DIRECTORY, NULL_DACL, add, read_tree
from support.tars import TarBuilder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20
END = bytes(1024)


def tar_of(*entries: tuple[Any, ...]) -> bytes:
    """A tar from calls of TarBuilder: the method's name and its arguments."""
    builder = TarBuilder()
    for method, *arguments in entries:
        getattr(builder, method)(*arguments)
    return builder.finish()


def tree_of(tmp_path: Path, tar: bytes, limits: Limits | None = None) -> dict[str, bytes | None]:
    """The files of an image of a tar, None for directories; alternate streams as FILE:NAME."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "tar").write_bytes(tar)
    cimlayer.create_image(tmp_path / "images" / "a.cim", tmp_path / "tar", sync=False, limits=limits or Limits())
    found: dict[str, bytes | None] = {}
    for path, node in read_tree(tmp_path / "images" / "a.cim").items():
        found[path] = None if node.is_directory else node.data
        found |= {f"{path}:{name}": data for name, data in node.streams.items()}
    return found


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


# ---- shapes of tars ----

FIRST, SECOND = b"first", b"second"
SIZE = tars.pax_record("size", "9" * 30)
THIRTY_DIGITS = tars.header(b"x", len(SIZE), tars.PAX_FILE) + tars.padded(SIZE)

# Shape -> tar, and either the tree that it becomes or the error.
SHAPES: dict[str, tuple[bytes, dict[str, bytes | None] | str]] = {
    "hard link to itself": (tar_of(("hardlink", "a", "a")), "target of the hard link does not exist"),
    "hard links to each other": (tar_of(("hardlink", "a", "b"), ("hardlink", "b", "a")), "does not exist"),
    "a file's link to itself": (tar_of(("file", "a", FIRST), ("hardlink", "a", "A")), {"a": FIRST}),
    "hard link to its directory": (tar_of(("directory", "d"), ("hardlink", "d/l", "d")), "link to a directory"),
    "symbolic links in a circle": (tar_of(("symlink", "a", "b"), ("symlink", "b", "a")), {"a": b"", "b": b""}),
    "symbolic links to themselves": (
        tar_of(("symlink", "a", "a"), ("symlink", "d/e", "../d")), {"a": b"", "d": None, "d\\e": b""}
    ),
    "a file through a link": (tar_of(("symlink", "a", "/etc"), ("file", "a/b", FIRST)), {"a": None, "a\\b": FIRST}),
    "a file through a file": (tar_of(("file", "a", SECOND), ("file", "a/b", FIRST)), {"a": None, "a\\b": FIRST}),
    "links that lead out": (tar_of(("symlink", "a", "/etc/shadow"), ("symlink", "b", "../etc")), {"a": b"", "b": b""}),
    "names of one case": (tar_of(("file", "Aa", FIRST), ("file", "aA", SECOND)), {"aA": SECOND}),
    "directories of one case": (
        tar_of(("directory", "D"), ("file", "D/a", FIRST), ("directory", "d"), ("file", "d/A", SECOND)),
        {"D": None, "D\\A": SECOND},
    ),
    "a file over a directory": (tar_of(("file", "D/a", FIRST), ("file", "d", SECOND)), {"d": SECOND}),
    "reserved names": (
        tar_of(("file", "CON"), ("file", "nul.txt"), ("file", "dot."), ("file", "space "), ("file", "...")),
        dict.fromkeys(["CON", "nul.txt", "dot.", "space ", "..."], b""),
    ),
    "the longest component": (tar_of(("file", "n" * 255)), {"n" * 255: b""}),
    "255 units beyond the BMP": (tar_of(("file", "\U0001f600" * 128)), "255"),
    "stream on a stream": (tar_of(("file", "a"), ("file", "a:b"), ("file", "a:b:c")), "stream type"),
    "stream without a name": (tar_of(("file", "a"), ("file", "a::$DATA")), "1 to 255"),
    "stream twice": (tar_of(("file", "a"), ("file", "a:b", FIRST), ("file", "a:B", SECOND)), {"a": b"", "a:B": SECOND}),
    "stream of a link": (tar_of(("file", "a"), ("hardlink", "l", "a"), ("file", "l:b")), "right before it"),
    "network name": (tar_of(("file", "//server/share/x")), "absolute"),
    "up and out": (tar_of(("file", "a/../../x")), "component . or .."),
    "empty name": (tars.header(b"") + END, "without a name"),
    "empty directory name": (tars.header(b"", 0, tars.DIRECTORY) + END, {}),
    "nothing at all": (b"", {}),
    "a size of 8 EiB": (tars.header(b"a", (1 << 63) - 1) + END, "beyond all limits"),
    "a size of 16 EiB": (tars.header(b"a", b"\x80\0\0\0\xff" + bytes(7)) + END, "malformed size"),
    "a size below zero": (tars.header(b"a", tars.base256(-1, 12)) + END, "malformed size"),
    "a size of thirty digits": (THIRTY_DIGITS + tars.header(b"a"), "malformed size"),
    "less than it claims": (tars.header(b"a", 1000) + bytes(512), "ends inside an entry"),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_hostile_shape_has_its_result(tmp_path: Path, shape: str) -> None:
    tar, result = SHAPES[shape]
    if isinstance(result, str):
        with pytest.raises(FormatError, match=re.escape(result)) as caught:
            tree_of(tmp_path, tar)
        assert caught.value.offset >= 0
        assert not (tmp_path / "images").exists()
    else:
        assert tree_of(tmp_path, tar) == result
        with cimlayer.ImageReader(tmp_path / "images" / "a.cim") as image:
            assert image.verify().ok
            extracted = cimlayer.extract(image, "", tmp_path / "out", symlinks=True)
        host = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "images")}
        inside = {path for path in host if path.is_relative_to(tmp_path / "out")}
        assert host == inside | {tmp_path / "tar"}
        leads = [os.path.normpath(path.parent / path.readlink()) for path in inside if path.is_symlink()]
        assert all(Path(target).is_relative_to(tmp_path / "out") for target in leads)
        assert extracted.files + extracted.symbolic_links <= len(result)


@pytest.mark.parametrize("depth", [1025, 16_000])
def test_nesting_beyond_the_limit_is_refused_at_once(tmp_path: Path, depth: int) -> None:
    with cpu_time_below(10), pytest.raises(LimitError, match="path_depth"):
        tree_of(tmp_path, tar_of(("file", "/".join("d" * depth))))


def test_nesting_up_to_the_limit_is_cheap(tmp_path: Path) -> None:
    with cpu_time_below(20):
        tree = tree_of(tmp_path, tar_of(("file", "/".join("d" * 1024)), ("file", "/".join("e" * 1024))))
    assert len(tree) == 2048


MEASURE = """
import resource, sys
import cimlayer
from cimlayer.errors import LimitError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    cimlayer.create_image(sys.argv[1], "/dev/stdin", sync=False, limits=cimlayer.Limits(files=int(sys.argv[2])))
    print("taken", end=" ")
except LimitError as error:
    print(error.limit, end=" ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
@pytest.mark.parametrize(("files", "result"), [(1 << 22, "taken"), (900_000, "files")])
def test_a_million_empty_names_cost_little(tmp_path: Path, files: int, result: str) -> None:
    thousand = tars.header(b"", 0, tars.DIRECTORY) * 500 + tars.header(b"./", 0, tars.DIRECTORY) * 500
    blob = gzip.compress(thousand) * 1000 + gzip.compress(END)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "a.cim"), str(files)]
    answer = subprocess.run(command, input=blob, capture_output=True, check=True, timeout=600).stdout
    found, kilobytes = answer.decode().split()
    assert found == result
    assert int(kilobytes) < 32 << 10


# ---- images that are read ----

SHARED = bytes(range(256)) * 4096  # 1 MiB, stored once


def fill(image: ImageWriter) -> None:
    """Thirty files of one content, one of them with a second name and a stream; a path of three components."""
    add(image, "d", attributes=DIRECTORY)
    add(image, "d\\e", attributes=DIRECTORY)
    for n in range(30):
        add(image, f"d\\e\\{n:02}", SHARED)
    image.create_alternate_stream("d\\e\\29:s", len(SHARED))
    image.write(SHARED)
    image.close_stream()
    image.create_hard_link("d\\link", "d\\e\\29")


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_layer(tmp_path_factory.mktemp("layers"), "1", fill)


def cim(layer: Path) -> Path:
    return cimlayer.get_cim_path_from_layer(layer)


def extract(layer: Path, destination: Path, limits: Limits, **options: Any) -> None:
    with cimlayer.ImageReader(cim(layer)) as image:
        cimlayer.extract(image, "", destination, limits=limits, **options)


def export(layer: Path, destination: Path, limits: Limits) -> None:
    cimlayer.export_layer(layer, [], destination, limits=limits)


FILES = 2 + 30 + 1
# What reads the image, its options, and the limits that it fills exactly.
READ: dict[str, tuple[Callable[..., None], dict[str, Any], Limits]] = {
    "extract": (extract, {}, Limits(files=FILES, bytes=30 * MIB, path_depth=3)),
    "sidecar": (extract, {"metadata": "sidecar"}, Limits(files=FILES + 1, bytes=31 * MIB, path_depth=3)),
    "export": (export, {}, Limits(files=FILES + 1, bytes=31 * MIB, path_depth=3)),
}


@pytest.mark.parametrize("case", READ)
def test_images_that_are_read_have_limits(layer: Path, tmp_path: Path, case: str) -> None:
    read, options, exact = READ[case]
    assert sum(path.stat().st_size for path in cim(layer).parent.iterdir()) < 3 * MIB
    read(layer, tmp_path / "all", exact, **options)
    for name in ("files", "bytes", "path_depth"):
        less = replace(exact, **{name: getattr(exact, name) - 1})
        with pytest.raises(LimitError, match=f"layer 1.cim: d.*the limit of {name} is") as caught:
            read(layer, tmp_path / name, less, **options)
        assert (caught.value.limit, caught.value.value, caught.value.layer) == (name, getattr(less, name), "1.cim")


def test_an_export_that_is_refused_leaves_no_tar(layer: Path, tmp_path: Path) -> None:
    with pytest.raises(LimitError):
        export(layer, tmp_path / "a.tar", Limits(bytes=MIB))
    assert list(tmp_path.iterdir()) == []


def test_an_extraction_writes_no_more_than_its_limit(layer: Path, tmp_path: Path) -> None:
    with pytest.raises(LimitError):
        extract(layer, tmp_path / "out", Limits(bytes=5 * MIB))
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) <= 5 * MIB


def test_directories_that_share_their_names_do_not_multiply_without_end(tmp_path: Path) -> None:
    """A thousand directories of one link table with a thousand names: a million files in 200 KiB."""
    builder = Builder()
    security = builder.counted(NULL_DACL)
    file = builder.add(security=security).to_bytes(4, "little")
    table = link_table([(f"{n:04}", file) for n in range(1000)])
    shared = stream(builder.put(table), len(table), LINKS)
    directories = {f"d{n:03}": builder.add(shared, security=security) for n in range(1000)}
    (tmp_path / "cim-layers").mkdir()
    builder.save(tmp_path / "cim-layers" / "1.cim", builder.directory(directories, security=security))
    with cpu_time_below(30):
        with cimlayer.ImageReader(tmp_path / "cim-layers" / "1.cim") as image:
            assert image.verify().files == 1
        for read in (extract, export):
            with pytest.raises(LimitError, match="files"):
                read(tmp_path / "1", tmp_path / read.__name__, Limits(files=5000))


def test_long_paths_count_as_more_than_one_entry(tmp_path: Path) -> None:
    """Two thousand files in 60 KiB, each of which would be kept with a path of its own."""
    builder = Builder()
    security = builder.counted(NULL_DACL)
    file = builder.add(security=security).to_bytes(4, "little")
    table = link_table([(f"{n:04}", file) for n in range(1000)])
    shared = stream(builder.put(table), len(table), LINKS)
    directory = builder.directory({name: builder.add(shared, security=security) for name in "ab"}, security=security)
    for _ in range(10):
        directory = builder.directory({"n" * 255: directory}, security=security)
    (tmp_path / "cim-layers").mkdir()
    builder.save(tmp_path / "cim-layers" / "1.cim", directory)
    for read in (extract, export):
        tracemalloc.start()
        try:
            with pytest.raises(LimitError, match="files"):
                read(tmp_path / "1", tmp_path / read.__name__, Limits(files=5000))
            assert tracemalloc.get_traced_memory()[1] < 5000 * 2500
        finally:
            tracemalloc.stop()


# ---- archives of images ----

MANY_RECORDS = b"".join(tars.pax_record(f"k{n}", "v") for n in range(100_000))
ARCHIVES = {
    "records of 4 EiB": tars.header(b"x", 1 << 62, tars.PAX_FILE) + END,
    "a long name of 8 GiB": tars.header(b"x", 8 << 30, tars.GNU_LONG_NAME) + END,
    "a file of 4 EiB": tars.header(b"x", 1 << 62) + END,
    "a name of 5,000 bytes": tar_of(("file", "n" * 5000)),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_that_claim_much_are_refused(tmp_path: Path, case: str) -> None:
    (tmp_path / "a.tar").write_bytes(ARCHIVES[case])
    with pytest.raises(FormatError, match=r"a\.tar"):
        TarArchive(tmp_path / "a.tar", CancellationToken())


def test_records_for_all_members_do_not_make_members_dear(tmp_path: Path) -> None:
    records = tars.header(b"x", len(MANY_RECORDS), tars.PAX_GLOBAL) + tars.padded(MANY_RECORDS)
    (tmp_path / "a.tar").write_bytes(records + tars.header(b"a") * 5000 + END)
    with cpu_time_below(20):
        assert TarArchive(tmp_path / "a.tar", CancellationToken()).size("a") == 0


def select_from(source: Path, platform: Platform = WINDOWS) -> None:
    with opened_source(source) as (images, _):
        select(images, platform)


@pytest.mark.parametrize("form", ["docker", "layout"])
def test_documents_of_many_images_are_not_kept(tmp_path: Path, form: str) -> None:
    many, padding = 20, [{}] * 20_000
    if form == "docker":  # one configuration, under a name of its own for each image
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]}
        config = json.dumps({"os": "linux", "rootfs": rootfs, "x": padding}).encode()
        names = ["./" * number + "c" for number in range(many)]
        manifest = [{"Config": name, "RepoTags": None, "Layers": ["c"]} for name in names]
        source = tar_of_files({"c": config, "manifest.json": json.dumps(manifest).encode()}, tmp_path / "a.tar")
    else:
        store = Store()
        layers = [plain(base_tar())]
        platform = {"os": "linux"}
        more = [{"x": padding, "number": number} for number in range(many)]
        entries = [store.image(layers, platform=platform, config=each, manifest=each) for each in more]
        source = store.layout(tmp_path / "a", entries)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"no container image for windows \(available: linux"):
            select_from(source)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20  # one document takes 1.5 MB
    finally:
        tracemalloc.stop()


def test_an_index_of_too_many_images_is_refused(tmp_path: Path) -> None:
    entries = [Store().put(str(n).encode(), "application/vnd.oci.image.manifest.v1+json") for n in range(MOST_IMAGES)]
    source = Store().layout(tmp_path / "most", entries)
    with pytest.raises(FileNotFoundError):
        select_from(source, Platform("unknown"))
    source = Store().layout(tmp_path / "more", [*entries, Store().put(b"", entries[0]["mediaType"])])
    with pytest.raises(FormatError, match=f"more than {MOST_IMAGES} container images"):
        select_from(source)


def test_a_docker_archive_of_too_many_images_is_refused(tmp_path: Path) -> None:
    manifest = json.dumps([{"Config": "c"}] * (MOST_IMAGES + 1)).encode()
    archive = tar_of_files({"manifest.json": manifest}, tmp_path / "a.tar")
    with pytest.raises(FormatError, match=f"more than {MOST_IMAGES} container images"):
        select_from(archive)


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
