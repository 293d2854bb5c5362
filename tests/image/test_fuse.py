"""A mounted image is what the manifest says; where FUSE is missing, the tests say so."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import tracemalloc
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cimlayer
from cimlayer.errors import CorruptImageError, UnsupportedCallError
from cimlayer.image.fuse import _operations, mount_with_fuse
from cimlayer.layer.paths import get_cim_path_from_layer
from support.commands import call, program, wait_until
from support.corpus import is_managed, manifest_of
from support.image_layers import link_data
from support.images import add, make_image, writer
from support.tars import FILETIME_OF_1970


@contextlib.contextmanager
def mounted(image: Path, directory: Path, printed: list[bytes] | None = None) -> Iterator[Path]:
    """``printed`` gets what the command wrote to its standard error."""
    pytest.importorskip("mfusepy", reason="mfusepy or libfuse is not here", exc_type=Exception)  # type: ignore[arg-type]
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is not here or not ours")
    directory.mkdir()
    with subprocess.Popen(program("mount", image, directory), stderr=subprocess.PIPE) as process:
        try:
            wait_until(directory.is_mount, process)
            if not directory.is_mount():
                assert process.stderr is not None
                pytest.skip(f"FUSE does not mount here: {process.stderr.read().decode()}")
            yield directory
        finally:
            subprocess.run(["fusermount", "-u", directory], check=False, capture_output=True)
            process.wait(20)
            if printed is not None:
                assert process.stderr is not None
                printed.append(process.stderr.read())
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["app,1.cim", "x,allow_other,suid,fsname=y.cim"])
def test_no_name_of_a_file_sets_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    calls: list[tuple[tuple[object, ...], dict[str, object]]] = []
    fuse = SimpleNamespace(Operations=object, FUSE=lambda *args, **options: calls.append((args, options)))
    monkeypatch.setitem(sys.modules, "mfusepy", fuse)
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "-oallow_other"
    directory.mkdir()
    with writer(tmp_path, None, name) as image:
        image.commit()
    mount_with_fuse(tmp_path / name, directory.name)
    ((_, place), options) = calls[0]
    assert place == str(directory)
    options.pop("errors")
    assert options == {"foreground": True, "ro": True, "use_ino": True, "fsname": "cimlayer"}


def test_mounted_tree_equals_the_manifest(corpus: Path, tmp_path: Path) -> None:
    manifest = manifest_of("greatgrandchild")
    with mounted(get_cim_path_from_layer(corpus / "greatgrandchild"), tmp_path / "mount") as root:
        for entry in manifest["entries"]:
            if is_managed(entry["path"], manifest["managed_rules"]):
                continue
            path = root / entry["path"].replace("\\", "/")
            status = path.lstat()
            if "last_write_time" not in entry.get("unspecified", ()):
                assert status.st_mtime_ns == (entry["last_write_time"] - FILETIME_OF_1970) * 100
            if path.is_symlink():
                assert "reparse" in entry
            elif entry["type"] == "file":
                assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"], entry["path"]
            else:
                assert path.is_dir()


def test_mount_is_read_only_and_has_links_and_attributes(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "File", b"content")
        image.create_alternate_stream("File:zone", 4)
        image.write(b"data")
        add(image, "link", reparse_data=link_data("File"))
        add(image, "escape", reparse_data=link_data(r"..\..\etc"))
        image.commit()
    with mounted(tmp_path / "image.cim", tmp_path / "mount") as root:
        assert sorted(os.listdir(root)) == ["File", "escape", "link"]
        assert (root / "FILE").read_bytes() == b"content"
        assert (str((root / "link").readlink()), (root / "link").read_bytes()) == ("File", b"content")
        assert not (root / "escape").is_symlink()
        assert os.getxattr(root / "File", "user.cimlayer.stream.zone") == b"data"
        with pytest.raises(OSError, match="Read-only"):
            (root / "new").write_bytes(b"x")
        with pytest.raises(FileNotFoundError):
            (root / "none").read_bytes()


def test_one_attribute_is_read_without_the_others(tmp_path: Path) -> None:
    """As the kernel asks for security.capability of every file that is executed."""
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "file")
        image.create_alternate_stream("file:large", 32 << 20)
        image.create_alternate_stream("file:zone", 4)
        image.write(b"data")
        image.commit()
    with cimlayer.ImageReader(tmp_path / "image.cim") as reader:
        calls: Any = _operations(SimpleNamespace(Operations=object), reader)
        tracemalloc.start()
        try:
            assert calls.getxattr("/file", "user.cimlayer.stream.zone") == b"data"
            assert "user.cimlayer.stream.large" in calls.listxattr("/file")
            for name, reason in {
                "security.capability": errno.ENODATA,
                "user.cimlayer.stream.none": errno.ENODATA,
                "user.cimlayer.none": errno.ENODATA,
                "user.cimlayer.reparse_data": errno.ENODATA,
                "user.cimlayer.stream.large": errno.E2BIG,
            }.items():
                with pytest.raises(OSError, match=r"No data|does not fit") as caught:
                    calls.getxattr("/file", name)
                assert caught.value.errno == reason, name
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_size_of_a_link_is_that_of_its_target(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "link", reparse_data=link_data("a\ud800"))
        image.commit()
    with cimlayer.ImageReader(tmp_path / "image.cim") as reader:
        calls: Any = _operations(SimpleNamespace(Operations=object), reader)
        assert calls.getattr("/link")["st_size"] == 4


def test_directory_that_holds_something_is_no_link(tmp_path: Path) -> None:
    """It is not one for extract either: what is inside would be out of reach."""
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "target", attributes=0x10)
        for name in ("empty", "full"):
            add(image, name, attributes=0x10, reparse_data=link_data("target"))
        add(image, "full\\inside")
        image.commit()
    with cimlayer.ImageReader(tmp_path / "image.cim") as reader:
        calls: Any = _operations(SimpleNamespace(Operations=object), reader)
        assert calls.readlink("/empty") == "target"
        assert stat.S_ISDIR(calls.getattr("/full")["st_mode"])
        with pytest.raises(OSError, match="Invalid argument"):
            calls.readlink("/full")


def test_blocks_say_whether_there_is_content(tmp_path: Path) -> None:
    """GNU tar --sparse takes a file without blocks for a hole as a whole."""
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "file", bytes(513))
        image.create_file("hole", size=1 << 20)
        add(image, "directory", attributes=0x10)
        image.commit()
    with cimlayer.ImageReader(tmp_path / "image.cim") as reader:
        calls: Any = _operations(SimpleNamespace(Operations=object), reader)
        blocks = [calls.getattr(path)["st_blocks"] for path in ("/file", "/hole", "/directory")]
    assert blocks == [2, 0, 0]


def test_content_that_is_read_in_pieces_is_compared_with_its_content_id(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(600_000)
    image = make_image(tmp_path, "image.cim", {"file": content})
    region = max(tmp_path.glob("region_*"), key=lambda path: path.stat().st_size)
    stored = bytearray(region.read_bytes())
    stored[stored.index(content) + 5] ^= 1
    region.write_bytes(stored)
    with cimlayer.ImageReader(image) as reader:
        calls: Any = _operations(SimpleNamespace(Operations=object), reader)
        handle = calls.open("/file", os.O_RDONLY)
        assert len(calls.read("/file", 300_000, 0, handle)) == 300_000
        with pytest.raises(CorruptImageError, match="content ID"):
            calls.read("/file", 300_000, 300_000, handle)
        calls.release("/file", handle)


def test_name_that_is_no_utf_8_is_not_there_and_nothing_is_printed(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"a\ud800": b"x"})
    printed: list[bytes] = []
    with mounted(image, tmp_path / "mount", printed) as root:
        assert os.listdir(os.fsencode(root)) == [b"a\xed\xa0\x80"]
        assert (root / os.fsdecode(b"a\xed\xa0\x80")).read_bytes() == b"x"
        for name in (b"a\xff", b"\xed\xa0"):
            with pytest.raises(FileNotFoundError):
                (root / os.fsdecode(name)).stat()
    assert printed == [b""]


@pytest.mark.skipif(shutil.which("tar") is None, reason="tar is not here")
def test_sparse_archive_of_a_mounted_image_has_its_content(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"content" * 1000})
    with mounted(image, tmp_path / "mount") as root:
        subprocess.run(["tar", "-S", "-cf", tmp_path / "tar", "-C", root, "file"], check=True, capture_output=True)
    with tarfile.open(tmp_path / "tar") as archive:
        content = archive.extractfile("file")
        assert content is not None
        assert content.read() == b"content" * 1000


def test_without_fuse_a_clear_message_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(UnsupportedCallError, match="mfusepy, which the extra 'fuse' of cimlayer brings"):
        mount_with_fuse(image, tmp_path)
    result = call("mount", image, tmp_path)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert cimlayer.ImageReader(image).exists("file")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing", "No such file or directory"),
        ("file", "Not a directory"),
        ("full", "Directory not empty"),
    ],
)
def test_a_place_that_is_no_empty_directory_fails_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, message: str
) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    (tmp_path / "file").touch()
    (tmp_path / "full/below").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "mfusepy", types.ModuleType("mfusepy"))  # it is not asked to mount
    result = call("mount", image, tmp_path / place)
    assert (result.exit_code, result.stderr) == (1, f"cimlayer: {tmp_path / place}: {message}\n")
