"""Limits, and what each shape of untrusted input costs: tars, CIMs that are read, archives of container images."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimlayer import Limits
from cimlayer.errors import FormatError, LimitError
from cimlayer.events import CancellationToken
from cimlayer.oci.files import TarArchive
from cimlayer.oci.locations import opened_source
from cimlayer.oci.platforms import WINDOWS, Platform
from cimlayer.oci.selection import MOST_IMAGES, select
from support import tars
from support.cimbytes import LINKS, Builder, link_table, stream
from support.commands import cpu_time_below
from support.containers import Store, base_tar, plain
from support.containers import tar_of as tar_of_files
from support.images import NULL_DACL
from support.limited import (
    END,
    MIB,
    cim,
    layer,  # noqa: F401  fixtures
    tar_of,
    tree_of,
)
from support.platforms import same_everywhere

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
    "names of one case": (tar_of(("file", "Aa", FIRST), ("file", "aA", SECOND)), "one name for Windows"),
    "directories of one case": (
        tar_of(("directory", "D"), ("file", "D/a", FIRST), ("directory", "d"), ("file", "d/A", SECOND)),
        "one name for Windows",
    ),
    "a file over a directory": (tar_of(("file", "D/a", FIRST), ("file", "d", SECOND)), "one name for Windows"),
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
    "a size of 16 EiB": (tars.header(b"a", b"\x80\0\0\0\xff" + bytes(7)) + END, "size beyond all limits"),
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


@same_everywhere
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


def extract(layer: Path, destination: Path, limits: Limits, **options: Any) -> None:
    with cimlayer.ImageReader(cim(layer)) as image:
        cimlayer.extract(image, "", destination, limits=limits, **options)


def export(layer: Path, destination: Path, limits: Limits) -> None:
    cimlayer.export_layer(layer, [], destination, limits=limits)


FILES = 2 + 30 + 1


# What reads the image, its options, and the limits that it fills exactly.
READ: dict[str, tuple[Callable[..., None], dict[str, Any], Limits]] = {
    "extract": (extract, {"metadata": "none"}, Limits(files=FILES, bytes=30 * MIB, path_depth=3)),
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


@same_everywhere
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
