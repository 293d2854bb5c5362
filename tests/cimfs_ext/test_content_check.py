"""Content that is read to its end is compared with its content ID."""

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cimfs_ext import errors
from cimfs_ext.reader import ImageReader
from support.images import add, make_image, writer

LARGE = random.Random(3).randbytes(700_000)
FILES = {"small": b"small content" * 10, "large": LARGE}


def damage(directory: Path, content: bytes) -> None:
    """Change one byte in the middle of what is stored, wherever it is."""
    middle = len(content) // 2
    for region in directory.glob("region_*"):
        data = region.read_bytes()
        if (at := data.find(content)) >= 0:
            region.write_bytes(data[: at + middle] + bytes([data[at + middle] ^ 1]) + data[at + middle + 1 :])
            return
    raise AssertionError("not stored")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path, "a.cim", FILES)


@pytest.mark.parametrize("name", FILES)
def test_damaged_content_is_not_read_to_its_end(image: Path, name: str) -> None:
    damage(image.parent, FILES[name])
    with ImageReader(image) as reader:
        with pytest.raises(errors.CorruptImageError, match="does not match its content ID") as caught:
            reader.read(name)
        assert caught.value.path == name
        assert caught.value.image_file.startswith("region_")
        for other in FILES.keys() - {name}:
            assert reader.read(other) == FILES[other]


def test_damaged_stream_is_named(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        add(image, "x")
        image.create_alternate_stream("x:s", len(LARGE))
        image.write(LARGE)
        image.commit()
    damage(tmp_path, LARGE)
    with ImageReader(tmp_path / "a.cim") as reader, pytest.raises(errors.CorruptImageError) as caught:
        reader.read("x", "s")
    assert caught.value.path == "x:s"


def test_content_of_a_parent_is_checked_in_its_fork(image: Path) -> None:
    fork = make_image(image.parent, "b.cim", {"copy": LARGE}, image.name)
    damage(image.parent, LARGE)
    with ImageReader(fork) as reader:
        for name in ("large", "copy"):
            with pytest.raises(errors.CorruptImageError, match="content ID"):
                reader.read(name)


def read_in_order(piece: int) -> Callable[[ImageReader], None]:
    def read(reader: ImageReader) -> None:
        with reader.open("large") as file:
            while file.read(piece):
                pass

    return read


def read_again(reader: ImageReader) -> None:
    with reader.open("large") as file:
        file.read(5000)
        file.seek(0)
        file.readall()


def read_with_jumps(reader: ImageReader) -> None:
    with reader.open("large") as file:
        file.read(5000)
        file.seek(-10, os.SEEK_END)
        file.read()
        file.seek(5000)
        file.readall()


@pytest.mark.parametrize(
    "read", [read_in_order(1000), read_in_order(1 << 19), read_in_order(1 << 21), read_again, read_with_jumps]
)
def test_ways_to_read_all_of_it(image: Path, read: Callable[[ImageReader], None]) -> None:
    with ImageReader(image) as reader:
        read(reader)
    damage(image.parent, LARGE)
    with ImageReader(image) as reader, pytest.raises(errors.CorruptImageError, match="content ID"):
        read(reader)


def test_parts_are_read_unchecked(image: Path) -> None:
    damage(image.parent, LARGE)
    with ImageReader(image) as reader, reader.open("large") as file:
        assert file.read(1000) == LARGE[:1000]
        file.seek(-1000, os.SEEK_END)
        assert file.read() == LARGE[-1000:]


def remove(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def forge_header(file: Path) -> None:
    file.write_bytes(b"x" * 500)


def make_foreign(file: Path) -> None:
    """As in an image from Windows: IDs that only it can compute."""
    file.write_bytes(file.read_bytes().replace(b"cimlayer", b"whatever"))


@pytest.mark.parametrize("spoil", [remove, cut, forge_header, make_foreign])
def test_content_without_an_id_is_not_judged(image: Path, spoil: Callable[[Path], None]) -> None:
    damage(image.parent, LARGE)
    for file in image.parent.glob("objectid_*"):
        spoil(file)
    with ImageReader(image) as reader:
        assert len(reader.read("large")) == len(LARGE)


def test_threads_that_share_a_stream_find_no_damage_where_none_is(image: Path) -> None:
    failures: list[BaseException] = []

    def read(offset: int) -> None:
        try:
            for _ in range(20):
                file.seek(offset)
                file.read(100_000)
                assert reader.read("large") == LARGE
        except BaseException as raised:  # noqa: BLE001  it is looked at in the main thread
            failures.append(raised)

    with ImageReader(image) as reader, reader.open("large") as file:
        threads = [threading.Thread(target=read, args=(i * 100_000,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
