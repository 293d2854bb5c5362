"""ImageReader and the files of an image: those that disappear while it is open, and how many it keeps open."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("no file is removed there while it is mapped", allow_module_level=True)

import resource

from cimfs_ext import errors
from cimfs_ext.reader import ImageReader
from support.images import assert_sound, make_image, read_files, writer

FILES = {"small": b"s" * 100, "large": b"l" * 10_000}
MOST_LAYERS = 127  # that Docker allows


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path, "a.cim", FILES)


def remove(image: Path) -> None:
    """As destroy does: the .cim first."""
    image.unlink()
    for file in (*image.parent.glob("region_*"), *image.parent.glob("objectid_*")):
        file.unlink()


def regions_of(image: Path) -> list[Path]:
    with ImageReader(image) as reader:
        return [image.parent / name for name in reader.region_sets[-1].file_names() if name.startswith("region")]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---- images that are removed ----


def test_what_was_not_read_before_is_gone_with_the_image(image: Path) -> None:
    with ImageReader(image) as reader:
        remove(image)
        with pytest.raises(errors.ImageNotFoundError, match="was removed while it was being read") as caught:
            reader.read("large")
    assert caught.value.path == str(image)


def test_what_was_read_before_is_read_to_its_end(image: Path) -> None:
    with ImageReader(image) as reader, reader.open("large") as file:
        assert file.read(1) == b"l"
        remove(image)
        assert file.read() == FILES["large"][1:]
        assert [entry.name for entry in reader.listdir("")] == ["large", "small"]


def test_verify_says_that_the_image_is_gone(image: Path) -> None:
    with ImageReader(image) as reader:
        remove(image)
        report = reader.verify()
    (problem,) = report.problems
    assert report.problem_count == 1
    assert (problem.file, problem.reason) == ("a.cim", "the image was removed while it was being read")


def test_verify_that_has_all_regions_open_misses_the_object_ids(image: Path) -> None:
    with ImageReader(image) as reader:
        assert {name: reader.read(name) for name in FILES} == FILES
        remove(image)
        assert [problem.file for problem in reader.verify().problems] == ["a.cim"]


def test_another_image_of_the_name_is_not_the_one_that_was_opened(image: Path) -> None:
    with ImageReader(image) as reader:
        remove(image)
        make_image(image.parent, image.name, FILES)
        with pytest.raises(errors.ImageNotFoundError):
            reader.read("large")


def test_a_region_that_is_missing_beside_its_image_is_damage(image: Path) -> None:
    with ImageReader(image) as reader:
        for file in regions_of(image):
            file.unlink()
        with pytest.raises(errors.CorruptImageError, match="the region file is missing"):
            reader.read("large")


def test_a_reader_works_on_beside_an_extension(image: Path) -> None:
    with ImageReader(image) as reader:
        with writer(image.parent, image.name) as extended:
            extended.delete_path("small")
            extended.commit()
        assert {name: reader.read(name) for name in FILES} == FILES
        assert reader.verify().ok


# ---- few descriptors ----


@pytest.fixture(scope="module")
def long_chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layer has content of its own in both regions for it."""
    directory = tmp_path_factory.mktemp("chain")
    parent = None
    for i in range(MOST_LAYERS):
        name = f"{i}.cim"
        make_image(directory, name, {f"s{i}": b"%d" % i, f"l{i}": b"%d" % i * 5000}, parent)
        parent = name
    return directory / f"{MOST_LAYERS - 1}.cim"


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_long_chain_is_read_and_verified(long_chain: Path) -> None:
    before = open_files()
    with ImageReader(long_chain) as reader:
        for i in reversed(range(MOST_LAYERS)):
            assert reader.read(f"s{i}") == b"%d" % i
            assert reader.read(f"l{i}") == b"%d" % i * 5000
        assert reader.verify().ok
        assert open_files() - before < 80
    assert open_files() == before


@pytest.mark.usefixtures("few_descriptors")
def test_long_chain_is_forked(long_chain: Path) -> None:
    files = {f"copy{i}": b"%d" % i * 5000 for i in range(MOST_LAYERS)}  # each is found in another layer
    fork = make_image(long_chain.parent, "fork.cim", files, long_chain.name)
    assert_sound(fork)
    assert all(file.stat().st_size < 5000 for file in regions_of(fork)[1:])
    assert len(read_files(fork)) == MOST_LAYERS * 3


def test_region_that_is_not_kept_open_can_go_missing(long_chain: Path, tmp_path: Path) -> None:
    for file in long_chain.parent.iterdir():
        (tmp_path / file.name).hardlink_to(file)
    with ImageReader(tmp_path / long_chain.name) as reader:
        for i in range(MOST_LAYERS):
            reader.read(f"l{i}")
        for file in tmp_path.glob("region_*"):
            file.unlink()
        assert reader.read("l0") == b"0" * 5000
        with pytest.raises(errors.CorruptImageError, match="the region file is missing"):
            reader.read(f"l{MOST_LAYERS - 1}")
        (tmp_path / long_chain.name).unlink()
        with pytest.raises(errors.ImageNotFoundError):
            reader.read(f"l{MOST_LAYERS - 1}")
