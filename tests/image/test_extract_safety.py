"""extract: nothing is written elsewhere, failures."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimfs_ext.extractor import FileExtractor
from cimfs_ext.image import ImageWriter
from cimlayer.errors import CorruptImageError, OperationCancelledError
from cimlayer.events import CancellationToken
from cimlayer.host import beneath
from support.extractions import (
    DIRECTORY,
    extracted,
    links,  # noqa: F401  fixtures
    tree,
)
from support.image_layers import link_data
from support.images import FORGED_NAMES, add, forge_name, make_image, writer
from support.platforms import needs_symlinks, posix_only
from support.tars import FILETIME_OF_1970

if sys.platform != "win32":
    import resource

# ---- nothing is written elsewhere ----


@needs_symlinks
def test_planted_link_in_place_of_a_directory_is_not_entered(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"d": None, "d\\file": b"x"})
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/d").symlink_to(tmp_path / "outside")
    with pytest.raises(FileExistsError):
        extracted(image, tmp_path / "out")
    assert tree(tmp_path / "outside") == {}


@needs_symlinks
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


@needs_symlinks
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
        written = 0

        def __init__(self, image: cimlayer.ImageReader, _existing: str) -> None:
            self._real = FileExtractor(image)

        def stop(self) -> None:
            self._real.stop()

        def write(self, directory: int, files: list[tuple[int, bytes]]) -> list[bytes]:
            skipped = write(self._real, directory, files)
            (tmp_path / "out/d").rename(tmp_path / "out/moved")
            (tmp_path / "out/d").symlink_to(outside)
            return skipped

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
    directory = beneath.open_top(tmp_path)
    try:
        with cimlayer.ImageReader(image) as reader, pytest.raises(ValueError, match="not a file name"):
            FileExtractor(reader).write(directory, [(reader.stat("file").file_id, name)])
    finally:
        beneath.close(directory)


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


@posix_only("limits of a process")
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
    with pytest.raises(ValueError, match="sidecar, xattr, native, not 'bogus'"):
        extracted(image, tmp_path / "out", metadata="bogus")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES, errno.ENOSYS])
@pytest.mark.parametrize("call", [pytest.param("link", marks=needs_symlinks), "symlink"])
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

    monkeypatch.setattr(beneath, call, refuse)
    done = extracted(tmp_path / "image.cim", tmp_path / "out", symlinks=True, metadata="none")
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

    monkeypatch.setattr(beneath, "symlink", full)
    with pytest.raises(OSError, match="No space") as caught:
        extracted(tmp_path / "image.cim", tmp_path / "out", symlinks=True, metadata="none")
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
        extracted(tmp_path / "image.cim", Path("out"), symlinks=True, metadata="none")
    assert caught.value.filename == str(Path("out/d/new"))


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
