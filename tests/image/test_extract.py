"""Files out of images: what is written, what is not, and that nothing is written elsewhere."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import resource
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimfs_ext.extractor import FileExtractor
from cimfs_ext.image import ImageWriter
from cimlayer.errors import CorruptImageError, LimitError, OperationCancelledError
from cimlayer.events import CancellationToken
from cimlayer.image.extract import Extraction, extract
from cimlayer.layer.paths import get_cim_path_from_layer
from cimlayer.limits import Limits
from support.corpus import KEPT_ATTRIBUTES, eas_of, is_managed, manifest_of
from support.image_layers import MOUNT_POINT, link_data
from support.images import FORGED_NAMES, add, forge_name, make_image, writer
from support.tars import FILETIME_OF_1970

DIRECTORY, SPARSE = 0x10, 0x200


def extracted(image: Path, destination: Path, path: str = "", **options: Any) -> Extraction:
    with cimlayer.ImageReader(image) as reader:
        return extract(reader, path, destination, **options)


def tree(directory: Path) -> dict[str, bytes | str | None]:
    """Content by path; None for a directory, the target for a symbolic link."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        found[name] = str(path.readlink()) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return found


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


def test_sidecar_has_everything_that_the_manifest_has(layer: Any) -> None:
    destination, _, expected = layer
    side = destination.with_name("out.metadata")
    lines = [json.loads(line) for line in (side / "entries.jsonl").read_text().splitlines()]
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


def test_names_too_long_for_the_host_are_shortened(tmp_path: Path) -> None:
    names = ["漢" * 255, "漢" * 254 + "字", "é" * 200 + ".txt", "x" * 255]
    image = make_image(tmp_path, "image.cim", {name: name.encode() for name in names})
    done = extracted(image, tmp_path / "out")
    found = tree(tmp_path / "out")
    assert sorted(found.values()) == sorted(name.encode() for name in names)  # type: ignore[type-var]
    assert done.renamed.keys() == set(names[:3])
    assert all(found[done.renamed[name]] == name.encode() for name in names[:3])
    assert done.renamed[names[2]].endswith(".txt")


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


def test_lone_surrogates_can_be_written(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"a\ud800": b"x"})
    extracted(image, tmp_path / "out")
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"a\xed\xa0\x80"]


# ---- links ----


@pytest.fixture
def links(tmp_path: Path) -> Path:
    with writer(tmp_path, None, "links.cim") as image:
        add(image, "target", b"x")
        add(image, "d", attributes=DIRECTORY)
        add(image, r"d\e", attributes=DIRECTORY)
        for name, data in {
            "good": link_data("target"),
            r"d\up": link_data(r"..\target"),
            r"d\e\top": link_data(r"..\.."),
            r"d\e\escape": link_data(r"..\..\.."),
            "escape": link_data(r"..\x"),
            "later": link_data(r"d\e\top\..\x"),
            "rooted": link_data(r"\etc\passwd"),
            "drive": link_data(r"C:\Windows", relative=False),
            "lies": link_data(r"C:\Windows"),
            "absolute": link_data("target", relative=False),
            "shows another": link_data("target", shown="d"),
            "shows less": link_data(r"..\x", shown="x"),
            "leads nowhere": link_data("", shown="target"),
            "long": link_data("é" * 511, shown=""),
            "too long": link_data("é" * 512, shown=""),
            "mount": link_data(r"C:\Windows", tag=MOUNT_POINT),
        }.items():
            add(image, name, reparse_data=data)
        add(image, "full", attributes=DIRECTORY, reparse_data=link_data("d"))
        add(image, r"full\inside", b"inside")
        add(image, "bare", attributes=DIRECTORY, reparse_data=link_data("d"))
        image.commit()
    return tmp_path / "links.cim"


def test_links_are_files_and_directories_unless_asked_for(links: Path, tmp_path: Path) -> None:
    extracted(links, tmp_path / "out")
    found = tree(tmp_path / "out")
    assert not any(isinstance(content, str) for content in found.values())
    assert (found["good"], found["bare"], found["mount"]) == (b"", None, b"")


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
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "setxattr", note)
    extracted(tmp_path / "linked.cim", tmp_path / "out", metadata="xattr")
    assert tree(tmp_path / "out") == {"one": b"content", "two": b"content"}
    assert attributes == {(tmp_path / "out" / name).stat().st_ino: b"2" for name in ("one", "two")}


# ---- nothing is written elsewhere ----


def test_planted_link_in_place_of_a_directory_is_not_entered(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"d": None, "d\\file": b"x"})
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/d").symlink_to(tmp_path / "outside")
    with pytest.raises(FileExistsError):
        extracted(image, tmp_path / "out")
    assert tree(tmp_path / "outside") == {}


@pytest.mark.parametrize("dangling", [True, False])
def test_planted_link_in_place_of_a_file_is_not_followed(tmp_path: Path, dangling: bool) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    outside = tmp_path / "outside"
    if not dangling:
        outside.write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").symlink_to(outside)
    with pytest.raises(FileExistsError) as caught:
        extracted(image, tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out/file")
    assert outside.exists() != dangling
    assert dangling or outside.read_bytes() == b"precious"


def test_directory_that_turns_into_a_link_meanwhile_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the making of directories and the times and links of the end."""
    with writer(tmp_path, None, "image.cim") as writing:
        add(writing, "d", attributes=DIRECTORY)
        add(writing, r"d\one", b"x")
        add(writing, "e", attributes=DIRECTORY)
        writing.create_hard_link(r"e\two", r"d\one")
        writing.commit()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "one").write_bytes(b"outside")
    write = FileExtractor.write

    class Swapping:
        def __init__(self, image: cimlayer.ImageReader) -> None:
            self._real = FileExtractor(image)

        def stop(self) -> None:
            self._real.stop()

        def write(self, directory: int, files: list[tuple[int, bytes]]) -> None:
            write(self._real, directory, files)
            (tmp_path / "out/d").rename(tmp_path / "out/moved")
            (tmp_path / "out/d").symlink_to(outside)

    monkeypatch.setattr("cimlayer.image.writers.FileExtractor", Swapping)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        extracted(tmp_path / "image.cim", tmp_path / "out", jobs=1)
    assert (outside / "one").stat().st_nlink == 1


@pytest.mark.parametrize("name", FORGED_NAMES)
def test_names_that_only_a_forged_image_has_are_refused(tmp_path: Path, name: str) -> None:
    honest = "axb"[: len(name)]
    image = make_image(tmp_path, "image.cim", {honest: b"x"})
    forge_name(tmp_path, honest, name)
    with pytest.raises(CorruptImageError, match="a name "):
        extracted(image, tmp_path / "out")
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_extractor_takes_single_components_only(tmp_path: Path, name: bytes) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with cimlayer.ImageReader(image) as reader, pytest.raises(ValueError, match="not a file name"):
            FileExtractor(reader).write(fd, [(reader.stat("file").file_id, name)])
    finally:
        os.close(fd)


# ---- failures ----


def test_nothing_that_exists_is_replaced_but_directories_are_shared(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"d": None, "d\\new": b"new"})
    (tmp_path / "out/d").mkdir(parents=True)
    (tmp_path / "out/d/old").write_bytes(b"old")
    extracted(image, tmp_path / "out")
    assert tree(tmp_path / "out") == {"d": None, "d/new": b"new", "d/old": b"old"}
    with pytest.raises(FileExistsError) as caught:
        extracted(image, tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out/d/new")


def with_directory(image: ImageWriter) -> None:
    add(image, "d", attributes=DIRECTORY)


def with_link(image: ImageWriter) -> None:
    add(image, "link", reparse_data=link_data("target"))


def with_hard_link(image: ImageWriter) -> None:
    add(image, "file")
    image.create_hard_link("link", "file")


@pytest.mark.parametrize("fill", [with_directory, with_link, with_hard_link])
def test_cancelled_extraction_writes_nothing(tmp_path: Path, fill: Any) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        fill(image)
        image.commit()
    token = CancellationToken()
    token.cancel()
    with pytest.raises(OperationCancelledError):
        extracted(tmp_path / "image.cim", tmp_path / "out", symlinks=True, cancel=token)
    assert tree(tmp_path / "out") == {}


class CancelledAfter(CancellationToken):
    """Cancelled after so many looks at it."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def cancelled(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize("looks", range(9))
def test_extraction_is_cancelled_anywhere_and_leaves_no_stream_in_part(tmp_path: Path, looks: int) -> None:
    size = 3 << 20
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "d", attributes=DIRECTORY)
        image.create_alternate_stream("d:s", size)
        add(image, "e", attributes=DIRECTORY)
        with_link(image)
        image.commit()
    token = CancelledAfter(looks)
    with pytest.raises(OperationCancelledError):
        extracted(tmp_path / "image.cim", tmp_path / "out", metadata="sidecar", symlinks=True, cancel=token)
    streams = (tmp_path / "out.metadata/streams").glob("*")
    assert [stream.stat().st_size for stream in streams] == [size] * (looks >= 4)


def test_stream_that_cannot_be_written_is_removed(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "file")
        image.create_alternate_stream("file:s", 4 << 20)
        image.commit()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            extracted(tmp_path / "image.cim", tmp_path / "out", metadata="sidecar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "out.metadata/streams").iterdir()) == []


def test_unknown_kind_of_metadata_is_refused(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    with pytest.raises(ValueError, match="sidecar, xattr, not 'bogus'"):
        extracted(image, tmp_path / "out", metadata="bogus")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES, errno.ENOSYS])
@pytest.mark.parametrize("call", ["link", "symlink"])
def test_a_host_without_links_gets_what_they_stand_for(
    tmp_path: Path, call: str, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "d", attributes=DIRECTORY)
        add(image, r"d\file", b"content", last_write_time=FILETIME_OF_1970)
        image.create_hard_link("hard", r"d\file")
        add(image, "to file", reparse_data=link_data("file"), last_write_time=FILETIME_OF_1970)
        image.create_hard_link("to file too", "to file")
        add(image, "to d", attributes=DIRECTORY, reparse_data=link_data("d"), last_write_time=FILETIME_OF_1970)
        image.commit()

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, call, refuse)
    done = extracted(tmp_path / "image.cim", tmp_path / "out", symlinks=True)
    out = tmp_path / "out"
    assert (out / "hard").read_bytes() == b"content"
    assert (out / "hard").stat().st_mtime_ns == 0
    if call == "link":
        assert not (out / "hard").samefile(out / "d/file")
        assert (done.symbolic_links, done.unresolved_links) == (3, [])
        return
    links = {"to d": None, "to file": b"", "to file too": b""}
    assert sorted(done.unresolved_links) == [*links]
    assert (done.files, done.directories, done.symbolic_links) == (3, 2, 0)
    assert tree(out) == {"d": None, "d/file": b"content", "hard": b"content"} | dict.fromkeys(links, b"") | {
        "to d": None
    }
    assert {(out / name).stat().st_mtime_ns for name in links} == {0}


def test_a_link_that_cannot_be_made_for_another_reason_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        with_link(image)
        image.commit()

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "symlink", full)
    with pytest.raises(OSError, match="No space") as caught:
        extracted(tmp_path / "image.cim", tmp_path / "out", symlinks=True)
    assert caught.value.filename == str(tmp_path / "out/link")


@pytest.mark.parametrize("asked", ["symlinks", "hard links"])
def test_errors_of_what_is_made_last_name_the_file_of_the_host(
    tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "d", attributes=DIRECTORY)
        add(image, r"d\file")
        if asked == "symlinks":
            add(image, r"d\new", reparse_data=link_data("file"))
        else:
            image.create_hard_link(r"d\new", r"d\file")
        image.commit()
    (tmp_path / "out/d").mkdir(parents=True)
    (tmp_path / "out/d/new").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileExistsError) as caught:
        extracted(tmp_path / "image.cim", Path("out"), symlinks=True)
    assert caught.value.filename == "out/d/new"


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open descriptors")
def test_file_that_cannot_be_written_is_removed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, bytes | None] = {f"d{number}": None for number in range(100)}
    files |= {f"d{number}\\file": b"x" * 100 for number in range(100)}
    files["d50\\large"] = b"x" * 300_000
    image = make_image(tmp_path, "image.cim", files)
    before = open_descriptors(), threading.active_count()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="large") as caught:
            extracted(image, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "out/d50/large")
    assert not (tmp_path / "out/d50/large").exists()
    assert (open_descriptors(), threading.active_count()) == before


def test_damaged_content_is_an_error_of_the_image(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"d": None, "d\\file": os.urandom(20_000)})
    with cimlayer.ImageReader(image) as reader:
        region = tmp_path / f"region_{reader.region_sets[0].set_id}_1"
    os.truncate(region, region.stat().st_size - 5000)
    with pytest.raises(CorruptImageError) as caught:
        extracted(image, tmp_path / "out")
    assert caught.value.filename == "d\\file"
    assert not (tmp_path / "out/d/file").exists()


# ---- metadata ----


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
    with pytest.raises(OSError, match="use a sidecar"):
        extracted(tmp_path / "image.cim", tmp_path / "whole", metadata="xattr")


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


@pytest.mark.parametrize("metadata", ["sidecar", "xattr"])
@pytest.mark.parametrize("limits", [Limits(files=3), Limits(bytes=8)])
def test_streams_count_where_they_are_kept(tmp_path: Path, metadata: str, limits: Limits) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "file", b"12345")
        image.create_alternate_stream("file:s", 4)
        image.write(b"6789")
        add(image, "d", attributes=DIRECTORY)
        image.create_alternate_stream("d:s", 0)
        image.commit()
    extracted(tmp_path / "image.cim", tmp_path / "dropped", limits=limits)
    with pytest.raises(LimitError) as caught:
        extracted(tmp_path / "image.cim", tmp_path / "out", metadata=metadata, limits=limits)
    assert caught.value.entry == "file:s"


@pytest.mark.parametrize("metadata", ["sidecar", "xattr"])
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
