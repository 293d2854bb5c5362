"""What images consist of and what they share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimfs_ext.regionsets import read_region_sets
from cimlayer import RegionSet
from cimlayer.errors import ImageError
from cimlayer.image.files import ImageDirectory
from cimlayer.image.inspect import image_chain, inspect_image
from cimlayer.layer.paths import get_cim_path_from_layer
from support.corpus import is_managed, manifest_of
from support.image_layers import link_data
from support.images import add, make_image, writer

DIRECTORY = 0x10
BLOCK = os.urandom(10_000)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A base with one of everything, and a fork that adds one new and one known content."""
    with writer(tmp_path, None, "base.cim") as image:
        add(image, "d", attributes=DIRECTORY)
        add(image, r"d\one", BLOCK)
        add(image, r"d\same", BLOCK)
        image.create_hard_link("link", r"d\one")
        image.create_alternate_stream(r"d\one:zone", len(BLOCK))
        image.write(BLOCK)
        image.create_file("sparse", size=1 << 30)
        add(image, "point", reparse_data=link_data("link"))
        image.commit()
    with writer(tmp_path, "base.cim", "child.cim") as image:
        add(image, "new", BLOCK[::-1])
        add(image, "known", BLOCK)
        image.commit()
    return tmp_path


def test_contents_are_counted(images: Path) -> None:
    contents = inspect_image(images / "base.cim").contents
    assert (contents.files, contents.directories, contents.hard_links) == (4, 1, 1)
    assert (contents.reparse_points, contents.streams) == (1, 1)
    assert contents.bytes == 3 * len(BLOCK) + (1 << 30)
    assert (contents.sparse_bytes, contents.stored_bytes) == (1 << 30, len(BLOCK))
    assert contents.saved_bytes == 2 * len(BLOCK)
    assert contents.own_stored_bytes == len(BLOCK)


def test_a_fork_adds_only_what_its_parent_has_not(images: Path) -> None:
    contents = inspect_image(images / "child.cim").contents
    assert contents.files == 6
    assert (contents.own_files, contents.own_stored_bytes) == (1, len(BLOCK))


def test_sets_name_their_files_and_users(images: Path) -> None:
    found = inspect_image(images / "child.cim")
    assert [(one.owner, one.users) for one in found.sets] == [
        ("base.cim", ("base.cim", "child.cim")),
        ("child.cim", ("child.cim",)),
    ]
    named = {file.name: file.size for one in found.sets for file in one.files}
    on_disk = {name: (images / name).stat().st_size for name in os.listdir(images) if not name.endswith(".cim")}
    assert named == on_disk
    assert found.sets[0].size == sum(file.size or 0 for file in found.sets[0].files)


def test_missing_object_id_file_is_shown(images: Path) -> None:
    missing = next(images.glob("objectid_*"))
    missing.unlink()
    files = [file for one in inspect_image(images / "child.cim").sets for file in one.files]
    assert [file.name for file in files if file.size is None] == [missing.name]


def test_directory_knows_what_belongs_to_whom(images: Path) -> None:
    (images / "broken.cim").write_bytes(b"nothing")
    (images / "notes.txt").write_bytes(b"nothing")
    directory = ImageDirectory(images)
    assert directory.region_sets.keys() == {"base.cim", "child.cim"}
    assert directory.unreadable.keys() == {"broken.cim"}
    assert directory.orphans() == []


@pytest.mark.parametrize("leaving", ["region_x", "leaving.cim"])
@pytest.mark.parametrize("when", ["listed", "opened"])
def test_files_that_leave_meanwhile_were_never_there(
    images: Path, leaving: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an import that is abandoned."""
    (images / leaving).write_bytes(b"nothing")
    scandir = os.scandir

    class Leaving:
        def __init__(self, path: Path) -> None:
            self._found = scandir(path)

        def __enter__(self) -> Any:
            entries = list(self._found)
            if when == "listed":
                (images / leaving).unlink()
            return iter(entries)

        def __exit__(self, *exc_info: object) -> None:
            self._found.close()

    def opened(path: Path) -> list[RegionSet]:
        (images / leaving).unlink(missing_ok=True)
        return read_region_sets(path)

    monkeypatch.setattr("cimlayer.image.files.os.scandir", Leaving)
    monkeypatch.setattr("cimlayer.image.files.read_region_sets", opened)
    directory = ImageDirectory(images)
    assert directory.region_sets.keys() == {"base.cim", "child.cim"}
    assert directory.unreadable == {}


def test_unreadable_image_is_an_error(images: Path) -> None:
    (images / "broken.cim").write_bytes(b"nothing")
    with pytest.raises(ImageError):
        inspect_image(images / "broken.cim")


def test_chain_goes_down_to_the_base(corpus: Path) -> None:
    chain = image_chain(get_cim_path_from_layer(corpus / "greatgrandchild"))
    assert [link.layer for link in chain] == [
        corpus / name for name in ("greatgrandchild", "grandchild", "child", "base")
    ]


def test_chain_finds_renamed_images_and_tells_of_lost_ones(images: Path) -> None:
    (images / "base.cim").rename(images / "renamed.cim")
    assert [link.image for link in image_chain(images / "child.cim")] == [images / "child.cim", images / "renamed.cim"]
    (images / "renamed.cim").unlink()
    chain = image_chain(images / "child.cim")
    assert [link.image for link in chain] == [images / "child.cim", None]
    assert inspect_image(images / "child.cim").sets[0].owner is None


def test_counts_of_the_corpus_are_those_of_the_manifest(corpus: Path) -> None:
    manifest = manifest_of("base")
    contents = inspect_image(get_cim_path_from_layer(corpus / "base")).contents
    with cimlayer.ImageReader(get_cim_path_from_layer(corpus / "base")) as image:
        managed = sum(is_managed(path, manifest["managed_rules"]) for path, _ in image.walk())
    expected = [entry for entry in manifest["entries"] if not is_managed(entry["path"], manifest["managed_rules"])]
    assert contents.files + contents.hard_links + contents.directories == len(expected) + managed
    once = {entry.get("link_group", entry["path"]): entry for entry in expected}
    assert contents.streams == sum(len(entry.get("streams", ())) for entry in once.values())


def test_plain_images_have_no_layer(tmp_path: Path) -> None:
    make_image(tmp_path, "plain.cim", {"file": b"x"})
    assert [link.layer for link in image_chain(tmp_path / "plain.cim")] == [None]
