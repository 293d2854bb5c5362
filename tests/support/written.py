"""What the tests of ImageWriter share."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from support import cimoracle
from support.images import (
    DIRECTORY,
    assert_sound,
    read_files,
    writer,
)

NOISE = random.Random(1).randbytes(9 << 20)


E_INVALIDARG, E_PATH, E_FILE, E_ACCESS = 0x80070057, 0x80070003, 0x80070002, 0x80070005


E_SHARING, E_EOF, E_EXISTS, E_CORRUPT = 0x80070020, 0x80070026, 0x80070050, 0x80070570


@pytest.fixture
def image(tmp_path: Path):
    with writer(tmp_path, None, "a.cim") as opened:
        yield opened


def committed(image: ImageWriter) -> dict[str, bytes | None]:
    image.commit()
    image.close()
    path = Path(image.directory) / image.name
    assert_sound(path)
    files = read_files(path)
    oracle = cimoracle.read_image(path.parent, path.name)
    assert {name: None if e.is_directory else e.data for name, e in oracle.items() if name} == files
    return files


def region_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("region_*"))


CALLS: dict[str, Callable[[ImageWriter, str], object]] = {
    "create a file": lambda image, path: image.create_file(path),
    "create a directory": lambda image, path: image.create_file(path, attributes=DIRECTORY),
    "create a stream": lambda image, path: image.create_alternate_stream(path if ":" in path else path + ":s", 0),
    "link to": lambda image, path: image.create_hard_link("new", path),
    "link from": lambda image, path: image.create_hard_link(path, "x"),
    "delete": lambda image, path: image.delete_path(path),
}
