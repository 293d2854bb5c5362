"""Files of Windows, as its own file systems have them, into images and out of them."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cimfs_ext.reader import ImageReader
from cimlayer.host import beneath
from cimlayer.image.compare import diff_images
from cimlayer.image.create import create_image
from support.extractions import DIRECTORY, SPARSE, extracted
from support.images import add, assert_sound, make_image, read_files, writer
from support.platforms import WINDOWS, not_under_wine

if sys.platform == "win32":
    from cimfs_ext import winfiles

pytestmark = pytest.mark.skipif(not WINDOWS, reason="Windows only: its file systems")

NAMES = ["CON", "nul.txt", "dot.", "space ", "ä漢", "n" * 200]
TIME = 132223104001234567
NULL_DACL = b"\1\0\4\x80" + bytes(16)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    directory = beneath.open_top(path)
    try:
        yield directory
    finally:
        beneath.close(directory)


def test_names_that_win32_cannot_open_go_in_and_out(tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {}
    for name in NAMES:
        files |= {f"{name} d": None, f"{name} d\\{name}": name.encode()}
    image = make_image(tmp_path, "image.cim", files)
    assert extracted(image, tmp_path / "out").renamed == {}
    with opened(tmp_path / "out") as directory:
        assert sorted(map(os.fsdecode, beneath.names(directory))) == sorted(f"{name} d" for name in NAMES)
    create_image(tmp_path / "again.cim", tmp_path / "out", sync=False)
    assert read_files(tmp_path / "again.cim") == files
    with opened(tmp_path / "out") as top:  # os.unlink takes none of these names
        for name in NAMES:
            directory = beneath.open_directory(f"{name} d".encode(), top)
            beneath.remove(name.encode(), directory)
            beneath.close(directory)
            beneath.remove(f"{name} d".encode(), top)


def test_paths_may_be_longer_than_win32_takes(tmp_path: Path) -> None:
    name, depth = "d" * 100, 12
    files: dict[str, bytes | None] = {"\\".join([name] * level): None for level in range(1, depth + 1)}
    files["\\".join([name] * depth + ["leaf"])] = b"leaf"
    image = make_image(tmp_path, "image.cim", files)
    done = extracted(image, tmp_path / "out")
    assert (done.directories, done.files) == (depth, 1)
    create_image(tmp_path / "again.cim", tmp_path / "out", sync=False)
    assert read_files(tmp_path / "again.cim") == files


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """An image with each kind of metadata."""
    with writer(tmp_path, None, "all.cim") as image:
        times = {"creation_time": TIME, "last_write_time": TIME + 10**7, "change_time": TIME + 2 * 10**7}
        add(image, "d", attributes=DIRECTORY | 2, **times)
        add(image, r"d\hidden", b"x", attributes=0x22, **times)
        add(image, r"d\locked", b"y", attributes=0x21, **times)
        image.create_alternate_stream(r"d\locked:zone", 4)
        image.write(b"data")
        image.create_hard_link("link", r"d\locked")
        image.create_file("holes", attributes=SPARSE | 0x20, size=8 << 20, **times)
        image.write(bytes(4 << 20) + b"land" + bytes((4 << 20) - 4))
        image.commit()
    return tmp_path / "all.cim"


def test_what_the_volume_keeps_comes_back(everything: Path, tmp_path: Path) -> None:
    done = extracted(everything, tmp_path / "out")
    assert (done.hard_links, done.files) == (1, 3)
    locked = (tmp_path / "out/d/locked").stat()
    assert (locked.st_nlink, locked.st_ino) == (2, (tmp_path / "out/link").stat().st_ino)
    assert locked.st_file_attributes & (stat.FILE_ATTRIBUTE_READONLY | stat.FILE_ATTRIBUTE_ARCHIVE) == 0x21
    create_image(tmp_path / "again.cim", tmp_path / "out", sync=False)
    assert_sound(tmp_path / "again.cim")
    with ImageReader(everything) as before, ImageReader(tmp_path / "again.cim") as after:
        lost = {aspect for change in diff_images(after, before) if change.path for aspect in change.aspects}
        for path, entry in before.walk():
            found = after.stat(path)
            assert (found.attributes | SPARSE) == (entry.attributes | SPARSE), path
            assert found.last_write_time == entry.last_write_time
    assert "content" not in lost
    assert "hard_links" not in lost


@not_under_wine("times of creation, streams, descriptors and sparse files")
def test_nothing_is_lost_on_ntfs(everything: Path, tmp_path: Path) -> None:
    assert extracted(everything, tmp_path / "out").lost == {}
    create_image(tmp_path / "again.cim", tmp_path / "out", metadata="native", sync=False)
    with ImageReader(everything) as before, ImageReader(tmp_path / "again.cim") as after:
        assert [change for change in diff_images(after, before) if change.path] == []


@pytest.mark.parametrize("metadata", ["sidecar", "none"])
def test_a_sidecar_brings_back_what_a_volume_does_not_have(everything: Path, tmp_path: Path, metadata: str) -> None:
    done = extracted(everything, tmp_path / "out", metadata=metadata)
    assert (done.lost == {}) == (metadata == "sidecar")
    create_image(tmp_path / "again.cim", tmp_path / "out", sync=False)
    with ImageReader(everything) as before, ImageReader(tmp_path / "again.cim") as after:
        changes = [change.path for change in diff_images(after, before) if change.path]
    assert (changes == []) == (metadata == "sidecar")


def test_what_the_volume_cannot_have_is_counted(everything: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with opened(tmp_path / "out") as directory:
        has_streams = bool(winfiles.features(directory) & winfiles.STREAMS)
    assert extracted(everything, tmp_path / "out").lost.get("streams", 0) == (not has_streams)


@pytest.mark.parametrize("existing", ["refuse", "skip", "overwrite"])
def test_existing_files_are_refused_skipped_or_replaced(tmp_path: Path, existing: str) -> None:
    image = tmp_path / "image.cim"
    with writer(tmp_path, None, image.name) as writing:  # no time of 0, which no file of NTFS can have
        add(writing, "a", b"new", last_write_time=TIME)
        add(writing, "large", b"x" * (1 << 20), last_write_time=TIME)
        writing.commit()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/A").write_bytes(b"old")
    if existing == "refuse":
        with pytest.raises(FileExistsError) as caught:
            extracted(image, tmp_path / "out")
        assert caught.value.filename == str(tmp_path / "out/a")
        assert (tmp_path / "out/a").read_bytes() == b"old"
        return
    done = extracted(image, tmp_path / "out", existing=existing)
    assert (done.files, done.skipped) == (2, 0)
    assert (tmp_path / "out/a").read_bytes() == b"new"
    assert extracted(image, tmp_path / "out", existing="skip").skipped == 2
    assert len(os.listdir(tmp_path / "out")) == 2


@pytest.mark.parametrize("name", [b"a:b", b"a\\b", b"a/b", b"..", b".", b"", b"n" * 256, b"a*"])
def test_what_is_no_name_reaches_no_file(tmp_path: Path, name: bytes) -> None:
    with opened(tmp_path) as directory, pytest.raises(OSError):
        beneath.make_directory(name, directory)
    assert list(tmp_path.iterdir()) == []


def test_errors_have_the_systems_code_and_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with opened(tmp_path) as directory:
        with pytest.raises(FileNotFoundError) as missing:
            beneath.open_directory(b"none", directory)
        with pytest.raises(NotADirectoryError) as file:
            beneath.open_directory(b"file", directory)
    assert (missing.value.winerror, missing.value.filename) == (2, "none")
    assert (file.value.winerror, file.value.filename) == (267, "file")
