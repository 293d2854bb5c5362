"""Contents in a tar are those of the files, in whatever order they lie in their regions, and they are checked."""

from __future__ import annotations

import base64
import io
import random
import tarfile
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import CorruptImageError
from support.images import DIRECTORY, NULL_DACL, add, make_image, writer

SIZES = (0, 1, 100, 4095, 4096, 4097, 65_535, 65_536, 65_537, 300_000)


def contents(count: int, seed: int) -> dict[str, bytes]:
    numbers = random.Random(seed)
    return {f"d\\{number:04d}": numbers.randbytes(numbers.choice(SIZES)) for number in range(count)}


def exported(image: Path) -> dict[str, bytes]:
    output = io.BytesIO()
    cimlayer.export_image_as_tar(image, output)
    output.seek(0)
    with tarfile.open(fileobj=output) as tar:
        return {
            info.name.replace("/", "\\"): file.read() for info in tar if (file := tar.extractfile(info)) is not None
        }


@pytest.mark.parametrize("swaps", [0, 3, 200])
def test_contents_in_any_order(tmp_path: Path, swaps: int) -> None:
    """Those of a fork lie in the regions of both images."""
    numbers = random.Random(swaps)
    files = contents(150, swaps)
    order = list(files)
    for _ in range(swaps):
        one, other = numbers.randrange(len(order)), numbers.randrange(len(order))
        order[one], order[other] = order[other], order[one]
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "d", attributes=DIRECTORY)
        for path in order:
            add(image, path, files[path])
        image.commit()
    assert exported(tmp_path / "image.cim") == files
    changed = {path: numbers.randbytes(len(data) // 2) for path, data in files.items() if numbers.random() < 0.3}
    with writer(tmp_path, "image.cim", "fork.cim") as image:
        for path, data in changed.items():
            image.delete_path(path)
            add(image, path, data)
        image.commit()
    assert exported(tmp_path / "fork.cim") == files | changed


def test_damage_is_found_in_its_file(tmp_path: Path) -> None:
    """In what was read together with the files before it, too."""
    files = {f"{number}": f"content {number}".encode() * 20 for number in range(9)}
    image = make_image(tmp_path, "image.cim", files)
    [region] = [path for path in tmp_path.glob("region_*") if files["7"] in path.read_bytes()]
    region.write_bytes(region.read_bytes().replace(files["7"], files["7"].swapcase()))
    with pytest.raises(CorruptImageError, match="does not match its content ID") as caught:
        cimlayer.export_image_as_tar(image, tmp_path / "tar")
    assert caught.value.path == "7"
    assert not (tmp_path / "tar").exists()


def test_region_that_was_cut_is_an_error_of_the_first_file_beyond(tmp_path: Path) -> None:
    files = {f"{number}": f"content {number}".encode() * 20 for number in range(9)}
    image = make_image(tmp_path, "image.cim", files)
    [region] = [path for path in tmp_path.glob("region_*") if files["7"] in path.read_bytes()]
    region.write_bytes(region.read_bytes().partition(files["7"])[0])
    with pytest.raises(CorruptImageError, match="beyond the end of its region") as caught:
        cimlayer.export_image_as_tar(image, tmp_path / "tar")
    assert caught.value.path == "7"


def test_each_entry_has_its_own_descriptor(tmp_path: Path) -> None:
    """Of more different ones than are kept, which come by turns with others that were written before."""
    descriptors = [NULL_DACL + number.to_bytes(4, "little") * (1 + number % 5) for number in range(300)]
    order = [*range(len(descriptors)), 1, 0, 2, 1, 0, *random.Random(1).choices(range(len(descriptors)), k=500)]
    with writer(tmp_path, None, "image.cim") as image:
        for number, which in enumerate(order):
            add(image, f"{number:04d}", security_descriptor=descriptors[which])
        image.commit()
    output = io.BytesIO()
    cimlayer.export_image_as_tar(tmp_path / "image.cim", output)
    output.seek(0)
    with tarfile.open(fileobj=output) as tar:
        records = [info.pax_headers.get("MSWINDOWS.rawsd", "") for info in tar]
    assert [base64.b64decode(record) for record in records] == [descriptors[which] for which in order]
