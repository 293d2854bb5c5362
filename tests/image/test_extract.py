"""extract: the corpus, content, names, times, links, metadata."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from cimlayer.errors import CorruptImageError, LimitError
from cimlayer.host import beneath
from cimlayer.image.extract import Extraction
from cimlayer.layer.paths import get_cim_path_from_layer
from cimlayer.limits import Limits
from support.corpus import KEPT_ATTRIBUTES, eas_of, is_managed, manifest_of
from support.extractions import (
    DIRECTORY,
    SPARSE,
    extracted,
    links,  # noqa: F401  fixtures
    tree,
)
from support.image_layers import link_data
from support.images import add, forge_name, make_image, writer
from support.platforms import needs_symlinks, not_under_wine, posix_only
from support.tars import FILETIME_OF_1970

if sys.platform != "win32":
    import resource

needs_xattrs = posix_only("extended attributes of files")


def nanoseconds(filetime: int) -> int:
    return (filetime - FILETIME_OF_1970) * 100


# ---- the corpus ----


@pytest.fixture(scope="module", params=["base", "greatgrandchild"])
def layer(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    destination = tmp_path_factory.mktemp(request.param) / "out"
    done = extracted(get_cim_path_from_layer(corpus / request.param), destination, metadata="sidecar")
    manifest = manifest_of(request.param)
    rules = manifest["managed_rules"]
    return destination, done, [entry for entry in manifest["entries"] if not is_managed(entry["path"], rules)]


def host_path(destination: Path, done: Extraction, path: str) -> Path:
    """Where an entry of the image lies; a directory whose name was too long takes along what it holds."""
    here = destination
    inner = ""
    for name in path.split("\\"):
        inner = f"{inner}\\{name}" if inner else name
        here = destination / done.renamed[inner] if inner in done.renamed else here / name
    return here


@not_under_wine("names of more than 255 bytes, which Linux does not have")
def test_extracted_tree_equals_the_manifest(layer: Any) -> None:
    destination, done, expected = layer
    inodes: dict[int, set[int]] = {}
    for entry in expected:
        status = os.lstat(host_path(destination, done, entry["path"]))
        if entry["type"] == "file":
            content = host_path(destination, done, entry["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["path"]
        assert (entry["type"] == "dir") == host_path(destination, done, entry["path"]).is_dir()
        if "last_write_time" not in entry.get("unspecified", ()):
            assert status.st_mtime_ns == nanoseconds(entry["last_write_time"]), entry["path"]
        if "link_group" in entry:
            inodes.setdefault(entry["link_group"], set()).add(status.st_ino)
    assert all(len(group) == 1 for group in inodes.values())
    assert len({inode for group in inodes.values() for inode in group}) == len(inodes)


@not_under_wine("names of more than 255 bytes, which Linux does not have")
def test_sidecar_has_everything_that_the_manifest_has(layer: Any) -> None:
    destination, _, expected = layer
    side = destination.with_name("out.metadata")
    lines = [json.loads(line) for line in (side / "entries.jsonl").read_text("utf-8").splitlines()]
    records = {line["path"].replace("/", "\\"): line for line in lines}
    for entry in expected:
        record = records[entry["path"]]
        if "link_to" in record:
            record = records[record["link_to"].replace("/", "\\")]
        unspecified = entry.get("unspecified", ())
        for time in ("creation_time", "last_write_time", "change_time", "last_access_time"):
            assert time in unspecified or record[time] == entry[time]
        if "attributes" not in unspecified:
            assert record["attributes"] == entry["attributes"] & KEPT_ATTRIBUTES
        if "sd" not in unspecified and "sddl" not in entry:
            assert base64.b64decode(record["security_descriptor"]).hex() == entry["sd"]
        assert base64.b64decode(record.get("reparse_data", "")).hex() == entry.get("reparse", "")
        eas = eas_of(base64.b64decode(record.get("extended_attributes", "")))
        assert eas == {ea["name"]: ea["value"] for ea in entry.get("eas", ())}
        streams = {
            stream["name"]: hashlib.sha256((side / "streams" / stream["file"]).read_bytes()).hexdigest()
            for stream in record.get("streams", ())
        }
        assert streams == {stream["name"]: stream["sha256"] for stream in entry.get("streams", ())}


@not_under_wine("names of more than 255 bytes, which Linux does not have")
def test_counts_are_those_of_the_tree(layer: Any) -> None:
    destination, done, _ = layer
    found = [path for path in destination.rglob("*") if not path.is_symlink()]
    assert done.directories == sum(path.is_dir() for path in found)
    assert done.files + done.hard_links == sum(path.is_file() for path in found)


# ---- content, names, times ----


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_number_of_threads_changes_nothing(tmp_path: Path, jobs: int) -> None:
    files: dict[str, bytes | None] = {}
    for number in range(700):
        if number % 70 == 0:
            files[f"d{number}"] = None
        files[f"d{number // 70 * 70}\\{number}"] = bytes([number % 256]) * number * 10
    image = make_image(tmp_path, "image.cim", files)
    extracted(image, tmp_path / "out", jobs=jobs)
    assert tree(tmp_path / "out") == {path.replace("\\", "/"): data for path, data in files.items()}


def test_one_directory_or_one_file_can_be_taken(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"a": None, "a\\b": None, "a\\b\\c": b"c", "d": b"d"})
    extracted(image, tmp_path / "directory", "A/B")
    assert tree(tmp_path / "directory") == {"c": b"c"}
    extracted(image, tmp_path / "file", "a\\b\\c")
    assert tree(tmp_path / "file") == {"c": b"c"}
    with pytest.raises(FileNotFoundError):
        extracted(image, tmp_path / "none", "a/x")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("time", [0, FILETIME_OF_1970 - 1, FILETIME_OF_1970, 132223104001234567])
def test_times_are_kept_to_the_tick(tmp_path: Path, time: int) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        for name, attributes in (("file", 0), ("directory", DIRECTORY)):
            add(image, name, attributes=attributes, last_write_time=time, last_access_time=time)
        add(image, r"directory\inside", b"x")
        image.commit()
    extracted(tmp_path / "image.cim", tmp_path / "out")
    for name in ("file", "directory"):
        status = (tmp_path / "out" / name).stat()
        if status.st_mtime_ns != nanoseconds(time):
            assert nanoseconds(time) < -(1 << 31) * 10**9, "only what the file system cannot hold is changed"


@posix_only("the blocks of a file")
def test_sparse_content_becomes_holes(tmp_path: Path) -> None:
    size = 64 << 20
    with writer(tmp_path, None, "image.cim") as image:
        image.create_file("empty", size=size)
        image.create_file("island", attributes=SPARSE, size=8 << 20)
        image.write(bytes(4 << 20) + b"land" + bytes((4 << 20) - 4))
        image.commit()
    extracted(tmp_path / "image.cim", tmp_path / "out")
    empty, island = (tmp_path / "out/empty").stat(), (tmp_path / "out/island").stat()
    assert (empty.st_size, empty.st_blocks) == (size, 0)
    assert island.st_blocks * 512 <= 1 << 17
    assert (tmp_path / "out/island").read_bytes() == bytes(4 << 20) + b"land" + bytes((4 << 20) - 4)


@posix_only("names that are counted in bytes")
def test_names_too_long_for_the_host_are_shortened(tmp_path: Path) -> None:
    names = ["漢" * 255, "漢" * 254 + "字", "é" * 200 + ".txt", "x" * 255]
    image = make_image(tmp_path, "image.cim", {name: name.encode() for name in names})
    done = extracted(image, tmp_path / "out")
    found = tree(tmp_path / "out")
    assert sorted(found.values()) == sorted(name.encode() for name in names)  # type: ignore[type-var]
    assert done.renamed.keys() == set(names[:3])
    assert all(found[done.renamed[name]] == name.encode() for name in names[:3])
    assert done.renamed[names[2]].endswith(".txt")


@posix_only("limits of a process")
def test_tree_deeper_than_descriptors_may_be_open_is_extracted(tmp_path: Path) -> None:
    depth = 400
    bottom = "\\".join("d" * depth)
    with writer(tmp_path, None, "image.cim") as image:
        for level in range(1, depth + 1):
            add(image, "\\".join("d" * level), attributes=DIRECTORY, last_write_time=FILETIME_OF_1970)
        add(image, f"{bottom}\\file", b"x")
        add(image, "d\\last", b"y")
        image.create_hard_link("d\\link", f"{bottom}\\file")
        image.commit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        done = extracted(tmp_path / "image.cim", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (done.directories, done.files, done.hard_links) == (depth, 2, 1)
    below = tmp_path / "out" / bottom.replace("\\", "/")
    assert (below / "file").read_bytes() == (tmp_path / "out/d/link").read_bytes() == b"x"
    assert {parent.stat().st_mtime_ns for parent in (below, *list(below.parents)[: depth - 1])} == {0}


@not_under_wine("half a surrogate pair in a name")
def test_lone_surrogates_can_be_written(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"a\ud800": b"x"})
    extracted(image, tmp_path / "out")
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"a\xed\xa0\x80"]


# ---- links ----


def test_links_are_files_and_directories_unless_asked_for(links: Path, tmp_path: Path) -> None:
    extracted(links, tmp_path / "out")
    found = tree(tmp_path / "out")
    assert not any(isinstance(content, str) for content in found.values())
    assert (found["good"], found["bare"], found["mount"]) == (b"", None, b"")


@needs_symlinks
def test_only_links_that_stay_inside_become_links(links: Path, tmp_path: Path) -> None:
    done = extracted(links, tmp_path / "out", symlinks=True)
    found = {name: target for name, target in tree(tmp_path / "out").items() if isinstance(target, str)}
    assert found == {
        "good": "target", "d/up": "../target", "d/e/top": "../..", "shows another": "target", "bare": "d",
        "long": "é" * 511,
    }  # fmt: skip
    assert done.symbolic_links == 6
    assert set(done.unresolved_links) == {
        r"d\e\escape", "escape", "later", "rooted", "drive", "lies", "absolute", "shows less", "leads nowhere",
        "too long", "full",
    }  # fmt: skip
    assert (tmp_path / "out/full/inside").read_bytes() == b"inside"


@needs_symlinks
def test_link_to_a_name_with_a_lone_surrogate_leads_to_it(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        for name in ("a\ud800", "b\udc80"):
            add(image, name, name.encode("utf-8", "surrogatepass"))
            add(image, f"to {name}", reparse_data=link_data(name))
        image.commit()
    done = extracted(tmp_path / "image.cim", tmp_path / "out", symlinks=True)
    assert done.symbolic_links == 2
    for name in (b"a\xed\xa0\x80", b"b\xed\xb2\x80"):
        assert (tmp_path / "out" / os.fsdecode(b"to " + name)).read_bytes() == name


def test_hard_links_share_an_inode_also_across_directories(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "a", attributes=DIRECTORY)
        add(image, "b", attributes=DIRECTORY)
        add(image, r"a\one", b"content")
        image.create_hard_link(r"b\two", r"a\one")
        image.create_hard_link("three", r"a\one")
        image.commit()
    done = extracted(tmp_path / "image.cim", tmp_path / "out")
    inodes = {(tmp_path / "out" / name).stat().st_ino for name in ("a/one", "b/two", "three")}
    assert (len(inodes), done.files, done.hard_links) == (1, 1, 2)


@needs_xattrs
@pytest.mark.parametrize("reason", [errno.EPERM, errno.EMLINK, errno.EXDEV])
def test_hard_links_become_copies_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    attributes: dict[int, bytes] = {}

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(reason, os.strerror(reason))

    def note(fd: int, name: bytes, value: bytes) -> None:
        if name == b"user.cimlayer.attributes":
            attributes[os.fstat(fd).st_ino] = value

    with writer(tmp_path, None, "linked.cim") as image:
        add(image, "one", b"content", attributes=2)
        image.create_hard_link("two", "one")
        image.commit()
    monkeypatch.setattr(beneath, "link", refuse)
    monkeypatch.setattr(os, "setxattr", note)
    extracted(tmp_path / "linked.cim", tmp_path / "out", metadata="xattr")
    assert tree(tmp_path / "out") == {"one": b"content", "two": b"content"}
    assert attributes == {(tmp_path / "out" / name).stat().st_ino: b"2" for name in ("one", "two")}


# ---- metadata ----


@needs_xattrs
def test_metadata_is_dropped_unless_asked_for(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    extracted(image, tmp_path / "out")
    assert os.listxattr(tmp_path / "out/file") == []
    assert not (tmp_path / "out.metadata").exists()


def has_xattrs(directory: Path) -> bool:
    try:
        os.setxattr(directory, "user.probe", b"")
    except OSError:
        return False
    os.removexattr(directory, "user.probe")
    return True


@needs_xattrs
def test_metadata_can_be_attached_to_the_files(tmp_path: Path) -> None:
    if not has_xattrs(tmp_path):
        pytest.skip("no extended attributes here")
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "d", attributes=DIRECTORY | 2, last_write_time=FILETIME_OF_1970)
        add(image, r"d\file", b"x", attributes=1, creation_time=7, last_write_time=FILETIME_OF_1970)
        image.create_alternate_stream(r"d\file:zone", 4)
        image.write(b"data")
        add(image, "large", b"x")
        image.create_alternate_stream("large:stream", 1 << 17)
        image.write(bytes(1 << 17))
        image.commit()
    extracted(tmp_path / "image.cim", tmp_path / "out", "d", metadata="xattr")
    file = tmp_path / "out/file"
    assert os.getxattr(file, "user.cimlayer.attributes") == b"1"
    assert os.getxattr(file, "user.cimlayer.times") == b"7 %d 0 0" % FILETIME_OF_1970
    assert os.getxattr(file, "user.cimlayer.stream.zone") == b"data"
    assert len(os.getxattr(file, "user.cimlayer.security_descriptor")) == 20
    assert file.stat().st_mtime_ns == 0
    done = extracted(tmp_path / "image.cim", tmp_path / "whole", metadata="xattr")
    assert done.lost == {"streams": 1}


@needs_xattrs
def test_attributes_are_read_one_at_a_time(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(200)]
    size = 1 << 16
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "file")
        for number, name in enumerate(names):
            image.create_alternate_stream(f"file:{name}", size)
            image.write(bytes([number]) * size)
        image.commit()
    written: dict[str, bytes] = {}

    def keep_the_end(fd: int, name: bytes, value: bytes) -> None:
        written[name.decode()] = value[-1:] if len(value) == size else value

    tracemalloc.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "setxattr", keep_the_end)
            extracted(tmp_path / "image.cim", tmp_path / "out", metadata="xattr")
        assert tracemalloc.get_traced_memory()[1] < 40 * size
    finally:
        tracemalloc.stop()
    streams = {f"user.cimlayer.stream.{name}": bytes([number]) for number, name in enumerate(names)}
    assert {name: value for name, value in written.items() if ".stream." in name} == streams


@pytest.mark.parametrize("metadata", ["sidecar", pytest.param("xattr", marks=needs_xattrs)])
@pytest.mark.parametrize("limits", [Limits(files=3), Limits(bytes=8)])
def test_streams_count_where_they_are_kept(tmp_path: Path, metadata: str, limits: Limits) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "file", b"12345")
        image.create_alternate_stream("file:s", 4)
        image.write(b"6789")
        add(image, "d", attributes=DIRECTORY)
        image.create_alternate_stream("d:s", 0)
        image.commit()
    extracted(tmp_path / "image.cim", tmp_path / "dropped", metadata="none", limits=limits)
    with pytest.raises(LimitError) as caught:
        extracted(tmp_path / "image.cim", tmp_path / "out", metadata=metadata, limits=limits)
    assert caught.value.entry == "file:s"


@pytest.mark.parametrize("metadata", ["sidecar", pytest.param("xattr", marks=needs_xattrs)])
def test_forged_names_of_streams_are_refused(tmp_path: Path, metadata: str) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "file")
        image.create_alternate_stream("file:axb", 0)
        image.commit()
    forge_name(tmp_path, "axb", "a\0b")
    with pytest.raises(CorruptImageError, match="a name "):
        extracted(tmp_path / "image.cim", tmp_path / "out", metadata=metadata)


def test_old_sidecar_is_not_overwritten(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    (tmp_path / "out.metadata").mkdir()
    with pytest.raises(FileExistsError):
        extracted(image, tmp_path / "out", metadata="sidecar")
