"""A mounted image is what the manifest says; where FUSE is missing, tests that mount are skipped."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimlayer.errors import CorruptImageError, LimitError, UnsupportedCallError
from cimlayer.image.fuse import ImageFiles, mount_with_fuse
from cimlayer.layer.paths import get_cim_path_from_layer
from cimlayer.limits import Limits
from support.commands import call, program, run, wait_until
from support.corpus import is_managed, manifest_of
from support.image_layers import link_data
from support.images import add, make_image, writer
from support.mounts import mounted
from support.tars import FILETIME_OF_1970

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="FUSE is spoken to Linux alone")


@contextlib.contextmanager
def calls_of(image: Path, **options: Any) -> Iterator[Calls]:
    with cimlayer.ImageReader(image) as reader:
        yield Calls(ImageFiles(reader, **options))


class Calls:
    """What the kernel asks, by paths."""

    def __init__(self, files: ImageFiles) -> None:
        self.files = files

    def node(self, path: str) -> int:
        node = 1
        for name in filter(None, path.split("/")):
            reply = self.files.answer(1, node, os.fsencode(name) + b"\0")
            (node,) = struct.unpack_from("=Q", reply)
            if not node:
                raise FileNotFoundError(path)
        return node

    def status(self, path: str) -> dict[str, int]:
        reply = self.files.answer(3, self.node(path), bytes(16))
        names = [
            "ino",
            "size",
            "blocks",
            "atime",
            "mtime",
            "ctime",
            "atimensec",
            "mtimensec",
            "ctimensec",
            "mode",
            "nlink",
        ]
        return dict(zip(names, struct.unpack_from("=6Q5I", reply, 16), strict=True))

    def readlink(self, path: str) -> bytes:
        return self.files.answer(5, self.node(path), b"")

    def open(self, path: str) -> int:
        (handle,) = struct.unpack_from("=Q", self.files.answer(14, self.node(path), bytes(8)))
        return int(handle)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return self.files.answer(15, 0, struct.pack("=QQI20x", handle, offset, size))

    def close(self, handle: int) -> None:
        self.files.answer(18, 0, struct.pack("=QIIQ", handle, 0, 0, 0))

    def listxattr(self, path: str) -> list[bytes]:
        reply = self.files.answer(23, self.node(path), struct.pack("=II", 1 << 16, 0))
        return reply.split(b"\0")[:-1]

    def getxattr(self, path: str, name: str) -> bytes:
        request = struct.pack("=II", 1 << 16, 0) + os.fsencode(name) + b"\0"
        return self.files.answer(22, self.node(path), request)

    def names(self, path: str, *, plus: bool) -> list[tuple[bytes, int, int]]:
        """Names with inodes and types, asked for in pieces."""
        found, offset, head = [], 0, 128 if plus else 0
        while reply := self.files.answer(44 if plus else 28, self.node(path), struct.pack("=QQI20x", 0, offset, 400)):
            at = 0
            while at < len(reply):
                inode, offset, length, kind = struct.unpack_from("=QQII", reply, at + head)
                found.append((reply[at + head + 24 : at + head + 24 + length], inode, kind))
                at += (head + 24 + length + 7) // 8 * 8
        return found


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
    with calls_of(tmp_path / "image.cim") as calls:
        tracemalloc.start()
        try:
            assert calls.getxattr("file", "user.cimlayer.stream.zone") == b"data"
            for name, reason in {
                "security.capability": errno.EOPNOTSUPP,  # of all files, as ls(1) understands it
                "system.posix_acl_access": errno.EOPNOTSUPP,
                "user.cimlayer.stream.none": errno.ENODATA,
                "user.cimlayer.none": errno.ENODATA,
                "user.cimlayer.reparse_data": errno.ENODATA,
                "user.cimlayer.stream.large": errno.ENODATA,
            }.items():
                with pytest.raises(OSError, match=r"No data|not supported") as caught:
                    calls.getxattr("file", name)
                assert caught.value.errno == reason, name
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_only_attributes_that_can_be_read_are_listed(tmp_path: Path) -> None:
    names = {"zone": 4, "large": (1 << 16) + 1, "n" * 234: 1, "m" * 235: 1, "most": 1 << 16}
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "file")
        for name, size in names.items():
            image.create_alternate_stream(f"file:{name}", size)
            image.write(bytes(size))
        add(image, "link", reparse_data=link_data("file"))
        image.create_alternate_stream("link:zone", 4)
        image.commit()
    with mounted(tmp_path / "image.cim", tmp_path / "mount") as root:
        listed = os.listxattr(root / "file")
        assert {name.removeprefix("user.cimlayer.stream.") for name in listed if "stream" in name} == {
            "zone",
            "n" * 234,
            "most",
        }
        assert all(os.getxattr(root / "file", name) for name in listed)
        assert os.listxattr(root / "link", follow_symlinks=False) == []


def test_streams_can_be_files(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(100_000)
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "Folder", attributes=0x10)
        add(image, "Folder\\File", b"x")
        image.create_alternate_stream("Folder\\File:large", len(content))
        image.write(content)
        image.create_alternate_stream("Folder\\File:zone", 4)
        image.write(b"data")
        add(image, "Folder\\plain", b"y")
        image.create_alternate_stream("Folder:of-a-directory", 2)
        image.write(b"ab")
        image.commit()
    with mounted(tmp_path / "image.cim", tmp_path / "mount", "--streams-as-files") as root:
        assert sorted(os.listdir(root)) == ["Folder", "Folder:of-a-directory"]
        folder = root / "Folder"
        assert sorted(os.listdir(folder)) == ["File", "File:large", "File:zone", "plain"]
        assert (folder / "file:LARGE").read_bytes() == content
        assert (folder / "File:zone").stat().st_mtime_ns == (folder / "File").stat().st_mtime_ns
        assert (root / "Folder:of-a-directory").read_bytes() == b"ab"
        with pytest.raises(FileNotFoundError):
            (folder / "plain:none").stat()
    with calls_of(tmp_path / "image.cim", streams_as_files=True) as calls:
        for plus in (False, True):
            names = {name: kind for name, _, kind in calls.names("Folder", plus=plus)}
            assert names[b"File:zone"] == stat.S_IFREG >> 12


def test_names_are_counted(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "a", b"x")
        add(image, "d", attributes=0x10)
        add(image, "d\\below", attributes=0x10)
        image.create_hard_link("d\\b", "a")
        image.create_hard_link("d\\below\\c", "a")
        image.commit()
    with calls_of(tmp_path / "image.cim") as calls:
        counts = {path: calls.status(path)["nlink"] for path in ("", "a", "d", "d/below", "d/below/c")}
        assert counts == {"": 3, "a": 3, "d": 3, "d/below": 2, "d/below/c": 3}
        assert calls.status("a")["ino"] == calls.status("d/b")["ino"]
    with pytest.raises(LimitError, match="files"), calls_of(tmp_path / "image.cim", limits=Limits(files=4)):
        pass


def test_damaged_directory_hides_what_is_in_it_alone(tmp_path: Path) -> None:
    files = {"bad": None, "bad\\other": b"y", "good": None, "good\\file": b"x"}
    image = make_image(tmp_path, "image.cim", files)
    name = "other".encode("utf-16-le")
    region = next(path for path in sorted(tmp_path.glob("region_*")) if name in path.read_bytes())
    region.write_bytes(region.read_bytes().replace(name, bytes(len(name))))
    with calls_of(image) as calls:
        assert [_listed(calls, path) for path in ("bad", "good")] == [False, True]
        assert [calls.status(path)["nlink"] for path in ("", "bad", "good/file")] == [4, 2, 1]


def _listed(calls: Calls, path: str) -> bool:
    try:
        return bool(calls.names(path, plus=True))
    except CorruptImageError:
        return False


def test_size_of_a_link_is_that_of_its_target(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "link", reparse_data=link_data("a\ud800"))
        image.commit()
    with calls_of(tmp_path / "image.cim") as calls:
        assert calls.status("link")["size"] == 4


def test_link_with_two_names_leads_out_from_neither(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        for path in ("a", "a\\b"):
            add(image, path, attributes=0x10)
        for name, target in (("one", r"..\file"), ("two", r"..\..\..\file"), ("three", r"..\file")):
            add(image, f"a\\b\\{name}", reparse_data=link_data(target))
        image.create_hard_link("three", "a\\b\\three")
        image.commit()
    with calls_of(tmp_path / "image.cim") as calls:
        kinds = {name: stat.S_IFMT(calls.status(f"a/b/{name}")["mode"]) for name in ("one", "two", "three")}
    assert kinds == {"one": stat.S_IFLNK, "two": stat.S_IFREG, "three": stat.S_IFREG}


def test_directory_that_holds_something_is_no_link(tmp_path: Path) -> None:
    """It is not one for extract either: what is inside would be out of reach."""
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "target", attributes=0x10)
        for name in ("empty", "full"):
            add(image, name, attributes=0x10, reparse_data=link_data("target"))
        add(image, "full\\inside")
        image.commit()
    with calls_of(tmp_path / "image.cim") as calls:
        assert calls.readlink("empty") == b"target"
        assert stat.S_ISDIR(calls.status("full")["mode"])
        with pytest.raises(OSError, match="not a symbolic link"):
            calls.readlink("full")
        kinds = {name: kind for name, _, kind in calls.names("", plus=False)}
        assert kinds == {b"empty": 10, b"full": 4, b"target": 4}
        assert calls.names("", plus=True) == calls.names("", plus=False)


def test_blocks_say_whether_there_is_content(tmp_path: Path) -> None:
    """GNU tar --sparse takes a file without blocks for a hole as a whole."""
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "file", bytes(513))
        image.create_file("hole", size=1 << 20)
        add(image, "directory", attributes=0x10)
        image.commit()
    with calls_of(tmp_path / "image.cim") as calls:
        assert [calls.status(path)["blocks"] for path in ("file", "hole", "directory")] == [2, 0, 0]
    with mounted(tmp_path / "image.cim", tmp_path / "mount") as root:
        for name, data, hole in (("file", 5, 513), ("hole", None, 5)):
            fd = os.open(root / name, os.O_RDONLY)
            try:
                if data is None:
                    with pytest.raises(OSError, match="No such device or address"):
                        os.lseek(fd, 5, os.SEEK_DATA)
                else:
                    assert os.lseek(fd, 5, os.SEEK_DATA) == data
                assert os.lseek(fd, 5, os.SEEK_HOLE) == hole
            finally:
                os.close(fd)


def test_only_files_that_nobody_may_change_are_read_only(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "file")
        add(image, "fixed", attributes=0x21)
        image.commit()
    with calls_of(tmp_path / "image.cim") as calls:
        assert [stat.S_IMODE(calls.status(name)["mode"]) for name in ("file", "fixed", "")] == [0o644, 0o444, 0o755]


def test_file_system_has_the_size_of_the_image(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"a": random.Random(1).randbytes(100_000), "b": b"x"})
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    with mounted(image, tmp_path / "mount") as root:
        found = os.statvfs(root)
        assert 0 <= found.f_blocks * found.f_frsize - size < 512
        assert (found.f_bfree, found.f_bavail, found.f_files, found.f_ffree) == (0, 0, 2, 0)


def test_content_that_is_read_in_pieces_is_compared_with_its_content_id(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(600_000)
    image = make_image(tmp_path, "image.cim", {"file": content})
    region = max(tmp_path.glob("region_*"), key=lambda path: path.stat().st_size)
    stored = bytearray(region.read_bytes())
    stored[stored.index(content) + 5] ^= 1
    region.write_bytes(stored)
    with calls_of(image) as calls:
        handle = calls.open("file")
        assert len(calls.read(handle, 0, 300_000)) == 300_000
        with pytest.raises(CorruptImageError, match="content ID"):
            calls.read(handle, 300_000, 300_000)
        calls.close(handle)


def test_name_that_is_no_utf_8_is_not_there(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"a\ud800": b"x"})
    with mounted(image, tmp_path / "mount") as root:
        assert os.listdir(os.fsencode(root)) == [b"a\xed\xa0\x80"]
        assert (root / os.fsdecode(b"a\xed\xa0\x80")).read_bytes() == b"x"
        for name in (b"a\xff", b"\xed\xa0", b"n" * 256, b"n" * 255):
            with pytest.raises(FileNotFoundError):
                (root / os.fsdecode(name)).stat()


@pytest.mark.skipif(shutil.which("tar") is None, reason="tar is not installed")
def test_sparse_archive_of_a_mounted_image_has_its_content(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"content" * 1000})
    with mounted(image, tmp_path / "mount") as root:
        subprocess.run(["tar", "-S", "-cf", tmp_path / "tar", "-C", root, "file"], check=True, capture_output=True)
    with tarfile.open(tmp_path / "tar") as archive:
        content = archive.extractfile("file")
        assert content is not None
        assert content.read() == b"content" * 1000


# ---- mounting itself ----


@pytest.mark.parametrize("name", ["app,1.cim", "x,allow_other,suid,fsname=y.cim"])
def test_no_name_of_a_file_sets_an_option(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "-oallow_other"
    with mounted(make_image(tmp_path, name, {"file": b"x"}), directory):
        (line,) = [line for line in Path("/proc/mounts").read_text("utf-8").splitlines() if str(directory) in line]
        options = line.split()[3].split(",")
        assert {"ro", "nosuid", "nodev"} <= set(options)
        assert "allow_other" not in options


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_lasts_until_it_is_stopped(tmp_path: Path, number: signal.Signals | None) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    directory = tmp_path / "mount"
    with mounted(image, directory):
        pass  # it can be
    with subprocess.Popen(program("mount", "--foreground", image, directory), stderr=subprocess.PIPE) as process:
        wait_until(directory.is_mount, process)
        assert (directory / "file").read_bytes() == b"x"
        if number is None:
            assert run("unmount", directory).returncode == 0
        else:
            process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert not directory.is_mount()


def test_what_is_in_use_is_not_unmounted(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    with mounted(image, tmp_path / "mount") as root, (root / "file").open("rb"):
        result = run("unmount", root)
        assert result.returncode == 1
        assert b"busy" in result.stderr


@pytest.mark.parametrize("place", ["directory", "missing", "file"])
def test_where_no_image_is_mounted_there_is_nothing_to_unmount(tmp_path: Path, place: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    result = call("unmount", tmp_path / place)
    assert (result.exit_code, result.stderr) == (1, f"cimlayer: {tmp_path / place}: no CIM is mounted there\n")


def test_without_fuse_a_clear_message_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    (tmp_path / "mount").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedCallError, match="install fuse3"):
        mount_with_fuse(image, tmp_path / "mount")
    result = call("mount", image, tmp_path / "mount")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def test_what_the_helper_says_is_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    (tmp_path / "mount").mkdir()
    helper = tmp_path / "fusermount3"
    helper.write_text(
        "#!/bin/sh\necho 'fusermount3: mount failed: Operation not permitted' >&2\nexit 1\n", encoding="utf-8"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    result = call("mount", image, tmp_path / "mount")
    said = f"cimlayer: {tmp_path / 'mount'}: mount failed: Operation not permitted\n"
    assert (result.exit_code, result.stderr) == (1, said)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing", "No such file or directory"),
        ("file", "Not a directory"),
        ("full", "Directory not empty"),
    ],
)
def test_a_place_that_is_no_empty_directory_fails_in_one_line(tmp_path: Path, place: str, message: str) -> None:
    image = make_image(tmp_path, "image.cim", {"file": b"x"})
    (tmp_path / "file").touch()
    (tmp_path / "full/below").mkdir(parents=True)
    result = call("mount", image, tmp_path / place)
    assert (result.exit_code, result.stderr) == (1, f"cimlayer: {tmp_path / place}: {message}\n")
