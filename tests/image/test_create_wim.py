"""Images of WIMs: what wimlib captures of an NTFS volume is what the image has."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import FormatError, LimitError, UnsupportedCallError
from cimlayer.formats import wim
from cimlayer.formats.sddl import descriptor_from_sddl
from support.commands import call, succeed
from support.image_layers import MOUNT_POINT, link_data
from support.images import names_in, read_files, read_tree

pytestmark = pytest.mark.skipif(shutil.which("wimlib-imagex") is None, reason="wimlib-imagex is not installed")

COMPRESSIONS = ("--compress=none", "--compress=fast", "--compress=maximum", "--solid")
DESCRIPTOR = descriptor_from_sddl("O:BAG:SYD:P(A;;FA;;;SY)(A;;FA;;;BA)")
TIMES = (132_000_000_000_000_001, 132_000_000_000_000_002, 132_000_000_000_000_003, 132_000_000_000_000_004)


def wimlib(*arguments: str | Path) -> None:
    subprocess.run(["wimlib-imagex", *map(str, arguments)], check=True, capture_output=True)


def captured(folder: Path, to: Path, *options: str) -> Path:
    wimlib("capture", folder, to, "One", *options)
    return to


def create(root: Path, source: Path, **options: object) -> Path:
    cimlayer.create_image(root / "images" / "image.cim", source, sync=False, **options)  # type: ignore[arg-type]
    return root / "images" / "image.cim"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of one chunk, of many, of chunks that cannot be compressed, and of none."""
    root = tmp_path_factory.mktemp("wim") / "folder"
    (root / "d" / "ü\U0001f600").mkdir(parents=True)
    (root / "small").write_bytes(b"content")
    (root / "empty").touch()
    (root / "d" / "large").write_bytes(b"some text " * 30_000)
    (root / "d" / "random").write_bytes(random.Random(1).randbytes(100_001))
    (root / "d" / "ü\U0001f600" / "again").write_bytes(b"content")
    os.link(root / "small", root / "d" / "linked")
    return root


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)).replace("/", "\\"): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_content_comes_out_of_every_compression(
    tmp_path: Path, folder: Path, plain: dict[str, bytes | None], compression: str
) -> None:
    image = create(tmp_path, captured(folder, tmp_path / "wim", compression))
    assert read_files(image) == plain
    with cimlayer.ImageReader(image) as reader:
        assert reader.stat("small").file_id == reader.stat("d/linked").file_id
        time = reader.stat("d/large").last_write_time
    assert (time - 116_444_736_000_000_000) * 100 == (folder / "d/large").stat().st_mtime_ns // 100 * 100


@contextlib.contextmanager
def ntfs(volume: Path, directory: Path) -> Iterator[Path]:
    """A new NTFS volume, mounted so that all it has can be set."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("mkntfs", "ntfs-3g"))):
        pytest.skip("an NTFS volume cannot be made here")
    with volume.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkntfs", "-q", "-F", "-f", volume], check=True, capture_output=True)
    directory.mkdir()
    mount = ["ntfs-3g", "-o", "streams_interface=xattr,norecover", volume, directory]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("an NTFS volume cannot be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def test_all_that_ntfs_has_is_kept(tmp_path: Path) -> None:
    junction = link_data(r"\??\C:\target", shown=r"C:\target", tag=MOUNT_POINT)
    with ntfs(tmp_path / "volume", tmp_path / "mnt") as root:
        (root / "file").write_bytes(b"content")
        (root / "d").mkdir()
        (root / "junction").mkdir()
        os.setxattr(root / "file", "user.zone", b"stream")
        os.setxattr(root / "d", "user.of-directory", b"x" * 60_000)
        os.setxattr(root / "file", "system.ntfs_acl", DESCRIPTOR)
        os.setxattr(root / "junction", "system.ntfs_reparse_data", junction)
        os.setxattr(root / "file", "system.ntfs_attrib", struct.pack("<I", 0x27))
        os.setxattr(root / "file", "system.ntfs_times", struct.pack("<4Q", *TIMES))
    wimlib("capture", tmp_path / "volume", tmp_path / "wim", "One")
    tree = read_tree(create(tmp_path, tmp_path / "wim"))
    file = tree["file"]
    assert (file.data, file.attributes, file.streams) == (b"content", 0x27, {"zone": b"stream"})
    creation, write, access, _ = TIMES
    assert file.times == (creation, write, write, access)  # a WIM has no change time
    assert file.security_descriptor == DESCRIPTOR
    assert tree["d"].streams == {"of-directory": b"x" * 60_000}
    assert tree["junction"].reparse_data == junction
    assert tree["junction"].is_directory


def test_one_of_several_images_is_chosen(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/only").write_bytes(b"x")
    captured(folder, tmp_path / "wim")
    wimlib("append", tmp_path / "other", tmp_path / "wim", "Second image")
    with pytest.raises(ValueError, match=r"choose an image: 1 \(One\), 2 \(Second image\)"):
        create(tmp_path, tmp_path / "wim")
    with pytest.raises(ValueError, match="there is no image '3'"):
        create(tmp_path, tmp_path / "wim", wim_image="3")
    for name, number in (("a", "2"), ("b", "Second image")):
        succeed("create", tmp_path / "images" / f"{name}.cim", tmp_path / "wim", "--wim-image", number, "--no-sync")
        assert read_files(tmp_path / "images" / f"{name}.cim") == {"only": b"x"}


def test_damage_names_the_entry(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"the content of it")
    captured(tmp_path / "folder", tmp_path / "wim", "--compress=none")
    data = (tmp_path / "wim").read_bytes()
    (tmp_path / "wim").write_bytes(data.replace(b"the content", b"thE content"))
    with pytest.raises(FormatError, match=r"^file: its content is damaged"):
        create(tmp_path, tmp_path / "wim")
    (tmp_path / "wim").write_bytes(data[:300])
    with pytest.raises(FormatError, match="wim"):
        create(tmp_path, tmp_path / "wim")
    assert names_in(tmp_path) == ["folder", "wim"]


@pytest.mark.parametrize("step", range(8))
def test_any_damage_is_an_error_of_its_own(tmp_path: Path, folder: Path, step: int) -> None:
    data = bytearray(captured(folder, tmp_path / "wim", COMPRESSIONS[step % 4]).read_bytes())
    numbers = random.Random(step)
    for _ in range(8):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[numbers.randrange(208, len(data))] = numbers.randrange(256)
        (tmp_path / "wim").write_bytes(damaged)
        shutil.rmtree(tmp_path / "images", ignore_errors=True)
        with contextlib.suppress(FormatError, ValueError):
            create(tmp_path, tmp_path / "wim")


@pytest.mark.parametrize(("option", "message"), [("--pipable", "pipable"), ("split", "split")])
def test_other_layouts_say_how_to_convert_them(tmp_path: Path, folder: Path, option: str, message: str) -> None:
    if option == "split":
        captured(folder, tmp_path / "whole", "--compress=none")
        wimlib("split", tmp_path / "whole", tmp_path / "wim.swm", "0.1")
        source = tmp_path / "wim.swm"
    else:
        source = captured(folder, tmp_path / "wim", option)
    with pytest.raises(FormatError, match=f"{message} WIM: .*wimlib-imagex"):
        create(tmp_path, source)


def test_limits_hold(tmp_path: Path, folder: Path) -> None:
    captured(folder, tmp_path / "wim")
    for limits in ({"files": 3}, {"bytes": 1000}):
        with pytest.raises(LimitError):
            create(tmp_path, tmp_path / "wim", limits=cimlayer.Limits(**limits))


def test_without_wimlib_the_error_says_what_is_missing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured(folder, tmp_path / "wim")
    monkeypatch.setattr(wim.ctypes.util, "find_library", lambda _name: "libnone.so.0")
    with pytest.raises(UnsupportedCallError, match="needs wimlib: install wimtools"):
        create(tmp_path, tmp_path / "wim")
    result = call("create", tmp_path / "images/image.cim", tmp_path / "wim")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
