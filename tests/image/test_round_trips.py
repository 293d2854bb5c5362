"""What goes out of an image comes back: through NTFS, extended attributes, and a sidecar."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import cimlayer
from cimlayer.image.create import create_image
from cimlayer.image.extract import extract
from cimlayer.layer.paths import get_cim_path_from_layer
from support.images import Node, assert_sound, read_tree
from support.ntfs import mounted_ntfs
from support.platforms import examples, posix_only
from support.trees import link_groups
from support.treestrategies import TREES, Made, write_tree

EXAMPLES = settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # files are slow to shrink
)
XATTR = pytest.param("xattr", marks=posix_only("extended attributes of files"))
UNKNOWN_TIME = 0
TOP = r"Files\Test"
UNREADABLE = {"streams"}  # for ntfs-3g, of some files


@pytest.fixture(scope="module")
def ntfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted_ntfs(tmp_path_factory.mktemp("ntfs")) as mount:
        yield mount


def there_and_back(image: Path, folder: Path, again: Path, metadata: str) -> cimlayer.Extraction:
    with cimlayer.ImageReader(image) as reader:
        done = extract(reader, "", folder, metadata=metadata)  # type: ignore[arg-type]
    create_image(again, folder, sync=False)
    assert_sound(again)
    with cimlayer.ImageReader(image) as before, cimlayer.ImageReader(again) as after:
        assert link_groups(before) == link_groups(after)
        for path, entry in before.walk():
            assert after.stat(path).sparse or not entry.sparse
    return done


@pytest.mark.parametrize("metadata", ["sidecar", XATTR])
@EXAMPLES
@given(tree=TREES)
def test_a_tree_comes_back_equal(metadata: str, tree: Mapping[str, Made]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        image = write_tree(directory, "one.cim", tree)
        done = there_and_back(image, directory / "out", directory / "two.cim", metadata)
        assert done.lost == {}
        assert read_tree(directory / "two.cim") == read_tree(image)


@pytest.mark.parametrize("metadata", ["sidecar", XATTR])
def test_links_come_back_whatever_name_the_host_lists_first(metadata: str, tmp_path: Path) -> None:
    image = tmp_path / "one.cim"
    with cimlayer.ImageWriter(tmp_path, None, "one.cim") as writer:  # its names sort without case: b before _a
        writer.create_file("b", attributes=0x20, last_write_time=120_000_000_000_000_000)
        writer.close_stream()
        writer.create_hard_link("_a", "b")
        writer.commit()
    there_and_back(image, tmp_path / "out", tmp_path / "two.cim", metadata)


def of_ntfs(tree: Mapping[str, Node]) -> dict[str, Node]:
    """What ntfs-3g lets through: no time of the change, no streams of reparse points and some system files."""
    return {
        path: dataclasses.replace(
            node,
            times=(*node.times[:2], UNKNOWN_TIME, node.times[3]),
            streams={} if node.reparse_data or (node.attributes & 4 and not node.data) else node.streams,
        )
        for path, node in tree.items()
    }


@EXAMPLES
@given(tree=TREES)
def test_a_tree_comes_back_from_ntfs_as_ntfs_3g_has_it(ntfs: Path, tree: Mapping[str, Made]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        image = write_tree(directory, "one.cim", tree)
        folder = ntfs / "out"
        shutil.rmtree(folder, ignore_errors=True)
        done = there_and_back(image, folder, directory / "two.cim", "auto")
        assert set(done.lost) <= {"times"}
        assert of_ntfs(read_tree(directory / "two.cim")) == of_ntfs(read_tree(image))


@pytest.mark.parametrize("metadata", ["sidecar", "xattr", "native"])
def test_the_test_files_of_the_edge_layer_come_back(tmp_path: Path, corpus: Path, ntfs: Path, metadata: str) -> None:
    image = get_cim_path_from_layer(corpus / "edge")
    folder = (ntfs if metadata == "native" else tmp_path) / "edge"
    with cimlayer.ImageReader(image) as reader:
        done = extract(reader, TOP, folder, exclude=["many"], metadata=metadata)  # type: ignore[arg-type]
    create_image(tmp_path / "two.cim", folder, sync=False)
    before = {path.removeprefix(TOP + "\\"): node for path, node in read_tree(image, TOP).items()}
    before = {path: node for path, node in before.items() if path.partition("\\")[0] != "many"}
    after = read_tree(tmp_path / "two.cim")
    assert after.keys() == before.keys()
    assert metadata != "sidecar" or not done.lost
    for path, node in before.items():
        excused = set(done.lost) | (UNREADABLE if metadata == "native" else set())
        if "reparse_data" in excused and node.reparse_data != after[path].reparse_data:
            excused.add("attributes")
        if metadata == "native" and node.reparse_data:
            excused.add("data")
        same = {kind: getattr(after[path], kind) for kind in excused}
        assert after[path] == dataclasses.replace(node, **same), path


def test_extracted_files_that_were_written_since_have_the_times_of_that(tmp_path: Path) -> None:
    with cimlayer.ImageWriter(tmp_path, None, "one.cim", sync=False) as image:
        image.create_file("a", creation_time=1 << 56, last_write_time=133 * 10**15, change_time=3, attributes=2)
        image.commit()
    with cimlayer.ImageReader(tmp_path / "one.cim") as reader:
        extract(reader, "", tmp_path / "out", metadata="sidecar")
    (tmp_path / "out/a").write_bytes(b"new")
    os.utime(tmp_path / "out/a", ns=(0, 10**18))
    create_image(tmp_path / "two.cim", tmp_path / "out", sync=False)
    with cimlayer.ImageReader(tmp_path / "two.cim") as reader:
        entry = reader.stat("a")
        assert reader.read("a") == b"new"
    assert (entry.creation_time, entry.attributes) == (1 << 56, 2)
    assert entry.last_write_time == entry.change_time == 116444736000000000 + 10**16
