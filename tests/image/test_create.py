"""Images of folders and of plain tars."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import FormatError, ImageExistsError, LimitError
from cimlayer.image.create import create_image
from cimlayer.image.extract import extract
from support.images import assert_sound, read_files, snapshot
from support.platforms import HAS_SYMLINKS, needs_symlinks, posix_only
from support.tars import FILETIME_OF_1970, TarBuilder

NANOSECONDS = 1_500_000_000_123_456_700


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    (root / "sub/deep").mkdir(parents=True)
    (root / "sub/file.txt").write_bytes(b"content")
    (root / "sub/deep/large").write_bytes(os.urandom(3 << 20))
    (root / "empty").write_bytes(b"")
    (root / "ünïcode 漢").write_bytes(b"x")
    (root / ("n" * 200)).write_bytes(b"long")
    os.link(root / "sub/file.txt", root / "linked")
    (root / "locked").write_bytes(b"locked")
    for path in [*root.rglob("*")]:
        os.utime(path, ns=(1, NANOSECONDS))
    if HAS_SYMLINKS:
        (root / "arrow").symlink_to("sub/file.txt")
        os.utime(root / "arrow", ns=(1, NANOSECONDS), follow_symlinks=False)
        os.utime(root, ns=(1, NANOSECONDS))
    (root / "locked").chmod(0o444)
    return root


def test_folder_comes_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    done = create_image(tmp_path / "images/app.cim", folder, sync=False)
    assert done.entries == len(list(folder.rglob("*")))
    assert_sound(tmp_path / "images/app.cim")
    with cimlayer.ImageReader(tmp_path / "images/app.cim") as image:
        extract(image, "", tmp_path / "out", symlinks=True)
        entry = image.stat("sub/file.txt")
        assert entry.last_write_time == FILETIME_OF_1970 + NANOSECONDS // 100
        assert image.stat("locked").attributes == 0x21
    for path in folder.rglob("*"):
        copy = tmp_path / "out" / path.relative_to(folder)
        assert copy.lstat().st_mtime_ns == NANOSECONDS
        if path.is_symlink():
            assert copy.readlink() == path.readlink()
        elif path.is_file():
            assert copy.read_bytes() == path.read_bytes()
    assert (tmp_path / "out/linked").samefile(tmp_path / "out/sub/file.txt")


def test_same_folder_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        create_image(tmp_path / name / "app.cim", folder, metadata="none", sync=False, reproducible=True)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_plain_tar_has_no_special_files(tmp_path: Path, pack: object) -> None:
    builder = TarBuilder()
    builder.file("Files/Windows/System32/config/SYSTEM", b"no hive at all")
    builder.file("Hives/System_Delta", b"nor this")
    builder.stream("Hives/System_Delta", "zone", b"stream")
    (tmp_path / "plain.tar").write_bytes(pack(builder.finish()))  # type: ignore[operator]
    done = create_image(tmp_path / "plain.cim", tmp_path / "plain.tar", sync=False)
    assert done.bytes == len(b"no hive at all" + b"nor this")
    files = read_files(tmp_path / "plain.cim")
    assert files[r"Files\Windows\System32\config\SYSTEM"] == b"no hive at all"
    assert files[r"Hives\System_Delta"] == b"nor this"


def assert_nothing_made(directory: Path) -> None:
    assert [name for name in os.listdir(directory) if name.endswith(".cim") or "_" in name] == []


WHITEOUTS = {".wh.file": b"1", ".wh.": b"2", ".wh..wh..opq": b"3", "file": b"4"}


def test_names_of_whiteouts_are_names_in_a_plain_tar(tmp_path: Path) -> None:
    builder = TarBuilder()
    for name, data in WHITEOUTS.items():
        builder.file(name, data)
    (tmp_path / "t.tar").write_bytes(builder.finish())
    create_image(tmp_path / "app.cim", tmp_path / "t.tar", sync=False)
    assert read_files(tmp_path / "app.cim") == WHITEOUTS


@posix_only("a dot at the end of a name, which Win32 drops")
def test_names_of_whiteouts_are_names_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, data in WHITEOUTS.items():
        (tmp_path / "folder" / name).write_bytes(data)
    create_image(tmp_path / "app.cim", tmp_path / "folder", sync=False)
    assert read_files(tmp_path / "app.cim") == WHITEOUTS


def colliding(root: Path) -> None:
    (root / "Name").write_bytes(b"1")
    (root / "nAME").write_bytes(b"2")


def colon(root: Path) -> None:
    (root / "a").write_bytes(b"1")
    (root / "a:b").write_bytes(b"2")


def backslash(root: Path) -> None:
    (root / "a\\b").write_bytes(b"1")


def fifo(root: Path) -> None:
    os.mkfifo(root / "pipe")


def not_utf8(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/\xff")).write_bytes(b"1")


@posix_only("names and files that Windows does not have")
@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (colliding, "'Name' and 'nAME' are one name"),
        (colon, "a:b: a colon in a name"),
        (backslash, "backslash"),
        (fifo, "neither file nor directory"),
        (not_utf8, "not UTF-8"),
    ],
)
def test_folders_that_windows_cannot_have_are_refused(tmp_path: Path, fill: object, message: str) -> None:
    (tmp_path / "folder").mkdir()
    fill(tmp_path / "folder")  # type: ignore[operator]
    with pytest.raises((FormatError, OSError), match=message):
        create_image(tmp_path / "app.cim", tmp_path / "folder")
    assert_nothing_made(tmp_path)


def test_existing_image_is_kept(folder: Path, tmp_path: Path) -> None:
    create_image(tmp_path / "images/app.cim", folder, sync=False)
    before = snapshot(tmp_path / "images")
    with pytest.raises(ImageExistsError):
        create_image(tmp_path / "images/app.cim", folder, sync=False)
    assert snapshot(tmp_path / "images") == before


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        create_image(tmp_path / "app.cim", tmp_path / "nowhere")
    assert_nothing_made(tmp_path)


@needs_symlinks
def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/link").symlink_to(tmp_path / "outside")
    create_image(tmp_path / "app.cim", tmp_path / "folder", sync=False)
    assert read_files(tmp_path / "app.cim") == {"link": None}


@needs_symlinks
def test_links_to_directories_are_directories_as_windows_needs_them(tmp_path: Path) -> None:
    (tmp_path / "folder/dir").mkdir(parents=True)
    (tmp_path / "folder/file").touch()
    for name, target in (("to dir", "dir"), ("to file", "file"), ("dangling", "nothing"), ("to itself", "to itself")):
        (tmp_path / "folder" / name).symlink_to(target)
    create_image(tmp_path / "app.cim", tmp_path / "folder", sync=False)
    with cimlayer.ImageReader(tmp_path / "app.cim") as image:
        links = {entry.name: entry.is_directory for entry in image.listdir() if entry.is_reparse_point}
    assert links == {"to dir": True, "to file": False, "dangling": False, "to itself": False}


@posix_only("calls relative to a directory")
def test_folders_may_be_deeper_than_a_path_is_long(tmp_path: Path) -> None:
    name, depth = "d" * 200, 100
    (tmp_path / "folder").mkdir()
    fds = [os.open(tmp_path / "folder", os.O_RDONLY)]
    try:
        for _ in range(depth):
            os.mkdir(name, dir_fd=fds[-1])
            fds.append(os.open(name, os.O_RDONLY, dir_fd=fds[-1]))
        os.close(os.open("leaf", os.O_WRONLY | os.O_CREAT, dir_fd=fds[-1]))
        os.symlink(f"../{name}", "link", dir_fd=fds[-1])
        create_image(tmp_path / "app.cim", tmp_path / "folder", sync=False)
    finally:
        for fd in fds:
            os.close(fd)
        shutil.rmtree(tmp_path / "folder")
    with cimlayer.ImageReader(tmp_path / "app.cim") as image:
        path, _ = list(image.walk())[-1]
        assert path == "\\".join([name] * depth + ["link"])
        assert image.stat(path).is_directory  # where the link lies
        assert image.read(path.replace("link", "leaf")) == b""


@posix_only("FIFOs")
def test_what_cannot_be_taken_is_named_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "folder/sub").mkdir(parents=True)
    os.mkfifo(tmp_path / "folder/sub/pipe")
    with pytest.raises(FormatError, match="neither file") as caught:
        create_image(tmp_path / "app.cim", tmp_path / "folder", sync=False)
    assert caught.value.what == str(tmp_path / "folder/sub/pipe")


@pytest.mark.parametrize(
    "place",
    ["folder/app.cim", "folder/sub/app.cim", pytest.param("link/app.cim", marks=needs_symlinks), "folder/new/app.cim"],
)
def test_an_image_does_not_go_into_its_own_folder(folder: Path, tmp_path: Path, place: str) -> None:
    if HAS_SYMLINKS:
        (tmp_path / "link").symlink_to("folder/sub")
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match="would lie in the folder"):
        create_image(tmp_path / place, folder)
    assert sorted(folder.rglob("*")) == before
    create_image(tmp_path / "folder too" / "app.cim", folder, sync=False)


def test_a_failure_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        create_image(tmp_path / "new" / "deeper" / "a.cim", tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_limits_name_the_image(tmp_path: Path) -> None:
    tar = TarBuilder()
    tar.file("a", b"12")
    (tmp_path / "a.tar").write_bytes(tar.finish())
    with pytest.raises(LimitError, match=r"layer a\.cim: a: too many bytes"):
        create_image(tmp_path / "a.cim", tmp_path / "a.tar", limits=cimlayer.Limits(bytes=1))
