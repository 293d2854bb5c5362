"""What a crash leaves is found and removed; nothing else ever is."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from cimlayer.errors import CorruptImageError
from cimlayer.layer.garbage import broken_images, collect_garbage
from support.images import assert_sound, make_image, snapshot, writer

CRASH = """
import os, sys
from cimfs_ext.image import ImageWriter
image = ImageWriter(sys.argv[1], sys.argv[2] or None, "new.cim")
image.create_file("large", size=1 << 20)
image.write(bytes(range(256)) * 4096)
os._exit(9)
"""


def crash(directory: Path, parent: str = "") -> None:
    ended = subprocess.run([sys.executable, "-c", CRASH, str(directory), parent], check=False, timeout=60)
    assert ended.returncode == 9


@pytest.fixture
def images(tmp_path: Path) -> Path:
    make_image(tmp_path, "base.cim", {"file": b"x" * 5000})
    make_image(tmp_path, "child.cim", {"other": b"y" * 5000}, parent="base.cim")
    return tmp_path


@pytest.mark.parametrize("parent", ["", "child.cim"])
def test_leftovers_of_a_crash_are_listed_and_removed(images: Path, parent: str) -> None:
    before = snapshot(images)
    crash(images, parent)
    left = set(os.listdir(images)) - before.keys()
    assert left
    assert {file.name for file in collect_garbage(images)} == left
    assert set(os.listdir(images)) == before.keys() | left, "a dry run removes nothing"
    sizes = {name: (images / name).stat().st_size for name in left}
    assert {file.name: file.size for file in collect_garbage(images, delete=True)} == sizes
    assert snapshot(images) == before
    for name in ("base.cim", "child.cim"):
        assert_sound(images / name)


def test_a_store_may_be_named_by_its_root(tmp_path: Path) -> None:
    (tmp_path / "cim-layers").mkdir()
    make_image(tmp_path / "cim-layers", "1.cim", {"file": b"x"})
    (tmp_path / "cim-layers" / f"image_{uuid.uuid4()}_0").write_bytes(b"half")
    for place in (tmp_path, tmp_path / "cim-layers"):
        assert len(collect_garbage(place)) == 1
        assert broken_images(place) == {}
    next((tmp_path / "cim-layers").glob("region_*_0")).unlink()
    assert broken_images(tmp_path).keys() == {"1.cim"}
    assert len(collect_garbage(tmp_path, delete=True)) == 1


def test_temporary_files_are_removed(images: Path) -> None:
    own = next(images.glob("objectid_*_0")).name
    temporary = [f"image_{uuid.uuid4()}_0", f"{own}.tmp"]
    for name in temporary:
        (images / name).write_bytes(b"half")
    assert {file.name for file in collect_garbage(images, delete=True)} == set(temporary)
    assert_sound(images / "child.cim")


def test_parents_whose_image_is_gone_stay_while_a_fork_needs_them(images: Path) -> None:
    (images / "base.cim").unlink()
    assert collect_garbage(images, delete=True) == []
    assert_sound(images / "child.cim")
    (images / "child.cim").unlink()
    collect_garbage(images, delete=True)
    assert os.listdir(images) == []


def test_images_with_names_of_any_kind_keep_their_files(images: Path) -> None:
    for name in ("plain", "image_1"):
        make_image(images, name, {"more": b"z" * 5000}, parent="base.cim")
    (images / "base.cim").unlink()
    assert collect_garbage(images, delete=True) == []
    for name in ("plain", "image_1"):
        assert_sound(images / name)


def test_other_files_are_left_alone(images: Path) -> None:
    set_id = uuid.uuid4()
    others = [
        "notes.txt", f"region_{set_id}", f"region_{set_id}_x", f"xregion_{set_id}_0", f"REGION_{set_id}_0",
        f"region_{set_id}_0.bak", "region__0",
    ]  # fmt: skip
    for name in others:
        (images / name).write_bytes(b"mine")
    shutil.copy(next(images.glob("region_*_0")), images / "copy of a region")
    (images / f"region_{set_id}_7").mkdir()
    (images / f"region_{set_id}_8").symlink_to("/etc/passwd")
    assert collect_garbage(images, delete=True) == []
    assert all((images / name).exists() for name in (*others, "copy of a region"))


def test_what_cannot_be_looked_at_may_be_an_image(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_image(images, "fork", {"file": b"z" * 5000}, parent="base.cim")
    before = snapshot(images)
    usual = os.open

    def refuse(path: str, *arguments: int, **where: int) -> int:
        if Path(path).name == "fork":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return usual(path, *arguments, **where)

    monkeypatch.setattr(os, "open", refuse)
    assert collect_garbage(images, delete=True) == []
    assert snapshot(images) == before


def test_the_files_of_a_running_writer_are_no_garbage(images: Path) -> None:
    crash(images)
    for arguments in ((None, "new.cim"), ("base.cim", "fork.cim"), ("child.cim", None)):
        with writer(images, *arguments) as image:
            image.create_file("file")
            before = snapshot(images)
            left = {file.name for file in collect_garbage(images, delete=True)}
            assert snapshot(images).keys() == before.keys() - left
            image.commit()
        assert collect_garbage(images, delete=True) == []
    for name in ("new.cim", "fork.cim", "child.cim"):
        assert_sound(images / name)


@pytest.mark.parametrize("name", ["broken.cim", "BROKEN.CIM"])
def test_nothing_is_removed_beside_an_unreadable_image(images: Path, name: str) -> None:
    crash(images)
    (images / name).write_bytes(b"cimfile0")
    before = snapshot(images)
    with pytest.raises(CorruptImageError) as caught:
        collect_garbage(images, delete=True)
    assert caught.value.filename == str(images / name)
    assert snapshot(images) == before


def test_images_whose_regions_are_gone_are_reported_and_keep_the_rest(images: Path) -> None:
    before = snapshot(images)
    gone = sorted(file.name for file in images.glob("region_*_0"))
    for name in gone:
        (images / name).unlink()
    assert collect_garbage(images, delete=True) == []
    assert {file for missing in broken_images(images).values() for file in missing} == set(gone)
    assert snapshot(images).keys() == before.keys() - set(gone)


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        collect_garbage(tmp_path / "none")
