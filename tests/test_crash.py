"""What a crash leaves: every committed image whole, no half image, and the same work possible again."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pytest

from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive
from cimfs_ext.regionsets import read_region_sets
from cimlayer import destroy_cim_layer, import_layer, is_cim_layer
from cimlayer.errors import ImageExistsError
from cimlayer.image.create import create_image
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.garbage import collect_garbage
from cimlayer.oci.import_image import import_image
from support import ROOT
from support.containers import Store, base_tar, child_tar, plain
from support.disk import Disk, State, read, restore
from support.images import DIRECTORY, TIME, assert_sound, read_files, snapshot
from support.libraries import build_system_calls, run_preloaded
from support.platforms import needs_kill
from support.tars import TarBuilder
from support.utilityvms import add_utility_vm

BASE_TAR, CHILD_TAR = ROOT / "examples" / "sample-layer.tar", ROOT / "examples" / "sample-child.tar"
KILLS = int(os.environ.get("CIMLAYER_CRASH_KILLS", "80"))
TORN_STATES = int(os.environ.get("CIMLAYER_CRASH_STATES", "4"))  # per operation
RERUNS = int(os.environ.get("CIMLAYER_CRASH_RERUNS", "10"))  # of one change, from what a crash has left

IMPORT = """
import sys
from cimlayer import import_layer
tar, layer, reproducible, *parents = sys.argv[1:]
print("ready", flush=True)
import_layer(tar, layer, parents, reproducible=reproducible == "reproducible", jobs=2)
"""
CHANGE = "import sys, test_crash; getattr(test_crash, sys.argv[1])(test_crash.Path(sys.argv[2]))"

Change = Callable[[Path], object]


# ---- what is changed, below a root ----


def fill(image: ImageWriter, mark: int) -> None:
    text = b"".join(bytes([mark + page]) * 4096 for page in range(5))
    image.create_file("d", attributes=DIRECTORY)
    for path, data in (("d\\large", text), ("d\\equal", text), ("d\\small", text[:100])):
        image.create_file(path, size=len(data))
        image.write(data[: len(data) // 2])  # in two pieces: what turns out to be there already is taken back
        image.write(data[len(data) // 2 :])
    image.create_alternate_stream("d\\small:s", 50)
    image.write(text[:50])
    image.create_hard_link("link", "d\\small")
    image.commit()


def create(root: Path) -> None:
    with ImageWriter(root, None, "base.cim", time=TIME) as image:
        fill(image, ord("a"))


def fork(root: Path) -> None:
    with ImageWriter(root, "base.cim", "fork.cim", time=TIME) as image:
        fill(image, ord("h"))


def extend(root: Path) -> None:
    with ImageWriter(root, "fork.cim", time=TIME) as image:
        fill(image, ord("o"))


def import_base(root: Path) -> None:
    import_layer(BASE_TAR, root / "new" / "layers" / "base")


def import_child(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Hives/SYSTEM_Delta", Hive.empty(0).to_bytes())
    tar.hardlink("Files/link", "Hives/SYSTEM_Delta")
    import_layer(io.BytesIO(tar.finish()), root / "child", [root / "base"])


def import_killed_child(root: Path) -> None:
    """Into the directories that an import has left which was killed."""
    import_child(root)


def import_utility_vm(root: Path) -> None:
    tar = TarBuilder()
    add_utility_vm(tar)
    import_layer(io.BytesIO(tar.finish()), root / "uvm", [root / "base"], reproducible=True)


def import_layers_of_image(root: Path) -> None:
    store = Store()
    with tempfile.TemporaryDirectory() as folder:
        layers = [plain(base_tar(a=b"1")), plain(child_tar(b=b"2"))]
        import_image(store.layout(Path(folder), [store.image(layers)]), root / "image")


def create_from_tar(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "plain.tar").write_bytes(child_tar(a=b"1"))
        create_image(root / "new" / "images" / "plain.cim", Path(folder) / "plain.tar")


def destroy(root: Path) -> None:
    destroy_cim_layer(root / "base")


IMAGE_CHANGES = (create, fork, extend)
NEEDS_A_BASE = (import_child, import_killed_child, import_utility_vm, destroy)
LAYER_CHANGES = (import_base, import_layers_of_image, create_from_tar, *NEEDS_A_BASE)


# ---- every prefix of what is done to the disk ----


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_system_calls(tmp_path_factory.mktemp("recorder") / "system_calls.so")


def record(recorder: Path, root: Path, change: Change) -> list[str]:
    """Make the change; returns the journal of it."""
    journal = root.with_name("journal")
    run_preloaded(recorder, root, CHANGE, change.__name__, str(root), CALLS_JOURNAL=str(journal))
    return journal.read_text("utf-8").splitlines()


def crashes(journal: list[str], disk: Disk) -> Iterator[tuple[str, bool, State]]:
    """What a crash may leave before the first operation and after each; where it was, and whether it was the last."""
    for done in range(len(journal) + 1):
        if done:
            disk.apply(journal[done - 1])
        where, at_end = f"operation {done} of {len(journal)}", done == len(journal)
        yield f"{where}, killed", at_end, disk.killed()
        yield f"{where}, without power", at_end, disk.powerless()
        for n in range(TORN_STATES):
            yield f"{where}, torn {n}", at_end, disk.torn(done * 1000 + n)


def images_in(directory: Path) -> dict[str, object]:
    """The content of every image that is visible, each of them sound."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*.cim")):
        assert_sound(path)
        found[path.name] = read_files(path)
    return found


def prepare(change: Change, tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    if change in IMAGE_CHANGES:
        for earlier in IMAGE_CHANGES[: IMAGE_CHANGES.index(change)]:
            earlier(root)
    elif change in NEEDS_A_BASE:
        import_layer(BASE_TAR, root / "base", sync=False)
    if change is import_killed_child:
        (root / "child" / "Hives").mkdir(parents=True)
    return root


_Seen = TypeVar("_Seen")


@dataclass
class Changed(Generic[_Seen]):
    """A directory that was changed, its disk before that, how it was done, and what is seen of it before and after."""

    root: Path
    disk: Disk
    journal: list[str]
    before: _Seen
    after: _Seen


def made(recorder: Path, tmp_path: Path, change: Change, look: Callable[[Path], _Seen]) -> Changed[_Seen]:
    root = prepare(change, tmp_path)
    disk, before = Disk(read(root)), look(root)
    journal = record(recorder, root, change)
    return Changed(root, disk, journal, before, look(root))


@pytest.mark.parametrize("change", IMAGE_CHANGES)
def test_any_prefix_of_the_operations_leaves_the_old_images_or_the_new(
    recorder: Path, tmp_path: Path, change: Change
) -> None:
    done = made(recorder, tmp_path, change, images_in)
    assert done.after != done.before
    seen = []
    for where, at_end, state in crashes(done.journal, done.disk):
        found = images_in(restore(tmp_path / "crashed", state))
        assert found == done.after or (found == done.before and not at_end), where
        seen.append(found == done.after)
    assert True in seen and False in seen
    assert done.disk.killed() == read(done.root)


@pytest.mark.parametrize("change", IMAGE_CHANGES)
def test_the_same_change_succeeds_after_a_kill_at_any_operation(recorder: Path, tmp_path: Path, change: Change) -> None:
    done = made(recorder, tmp_path, change, images_in)
    for line in done.journal:
        done.disk.apply(line)
        crashed = restore(tmp_path / "crashed", done.disk.killed())
        if images_in(crashed) == done.before:
            change(crashed)
        assert images_in(crashed) == done.after, line[:80]


def files_of_images(root: Path) -> dict[str, State]:
    """By image: itself, the regions that it refers to, and the directory of its layer."""
    everything = read(root)
    found = {}
    for image in root.rglob("*.cim"):
        paths = [image, *(image.parent / name for one in read_region_sets(image) for name in one.file_names())]
        layer = image.parents[1] / image.stem
        paths += [layer, *layer.rglob("*")] if layer.is_dir() else []
        names = [path.relative_to(root).as_posix() for path in paths]
        found[names[0]] = {name: everything[name] for name in names}
    return found


def files_without_image(root: Path) -> set[Path]:
    needed = {root / path for files in files_of_images(root).values() for path in files}
    return {*root.rglob("region_*"), *root.rglob("objectid_*"), *root.rglob("image_*")} - needed


@pytest.mark.parametrize("change", LAYER_CHANGES)
def test_an_image_that_is_there_after_a_crash_is_whole_and_so_is_its_layer(
    recorder: Path, tmp_path: Path, change: Change
) -> None:
    done = made(recorder, tmp_path, change, files_of_images)
    old, new, images = set(done.before), set(done.after), done.before | done.after
    seen = set()
    for where, at_end, state in crashes(done.journal, done.disk):
        visible = images.keys() & state.keys()
        seen.add(frozenset(visible))
        assert visible >= old & new, where
        for image in visible:
            wrong = [path for path, data in images[image].items() if state.get(path, 0) != data]
            assert not wrong, f"{where}: {image} is there, {wrong} are not as they were"
        assert visible == new or not at_end, where
    assert {frozenset(old), frozenset(new)} <= seen
    assert done.disk.killed() == read(done.root)


@pytest.mark.parametrize("change", LAYER_CHANGES)
def test_the_same_layer_succeeds_after_a_crash_and_nothing_else_is_left(
    recorder: Path, tmp_path: Path, change: Change
) -> None:
    done = made(recorder, tmp_path, change, images_in)
    left = 0
    for number, (where, _, state) in enumerate(crashes(done.journal, done.disk)):
        if number % (len(done.journal) * (2 + TORN_STATES) // RERUNS):
            continue
        crashed = restore(tmp_path / "crashed", state)
        left += len(files_without_image(crashed))
        with contextlib.suppress(FileExistsError):  # it had come to its end
            change(crashed)
        assert images_in(crashed) == done.after, where
        for directory in {path.parent for path in files_without_image(crashed)}:
            collect_garbage(directory, delete=True)
        assert not files_without_image(crashed), where
    assert left


# ---- kill -9 at any time ----


def start_import(layer: Path, tar: Path, parents: Iterable[Path], reproducible: bool) -> subprocess.Popen[bytes]:
    """An import that has loaded its modules and begins."""
    mode = "reproducible" if reproducible else "random"
    words = [sys.executable, "-c", IMPORT, str(tar), str(layer), mode, *map(str, parents)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def finish(process: subprocess.Popen[bytes]) -> int:
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode


def duration(start: Callable[[], subprocess.Popen[bytes]]) -> float:
    process = start()
    began = time.monotonic()
    assert finish(process) == 0
    return time.monotonic() - began


@needs_kill
@pytest.mark.parametrize("reproducible", [False, True], ids=["random", "reproducible"])
def test_a_killed_import_leaves_no_half_image_and_can_be_run_again(tmp_path: Path, reproducible: bool) -> None:
    base, child = tmp_path / "base", tmp_path / "child"
    import_layer(BASE_TAR, base, sync=False)
    chance = random.Random(7)

    def start() -> subprocess.Popen[bytes]:
        return start_import(child, CHILD_TAR, [base], reproducible)

    longest = duration(start)
    expected = read_files(tmp_path / "cim-layers" / "child.cim")
    destroy_cim_layer(child)
    ends = []
    for _ in range(KILLS // 2):
        process = start()
        time.sleep(chance.uniform(0, longest))
        process.kill()
        ends.append(finish(process))
        assert_sound(tmp_path / "cim-layers" / "base.cim")
        if not is_cim_layer(child):
            import_layer(CHILD_TAR, child, [base], sync=False, reproducible=reproducible)
        assert_sound(tmp_path / "cim-layers" / "child.cim")
        assert read_files(tmp_path / "cim-layers" / "child.cim") == expected
        destroy_cim_layer(child)
    assert -signal.SIGKILL in ends


@needs_kill
def test_a_killed_import_of_a_base_layer_can_be_run_again(tmp_path: Path) -> None:
    base, other = tmp_path / "base", tmp_path / "other"
    import_layer(BASE_TAR, base, sync=False)
    chance = random.Random(8)
    longest = duration(lambda: start_import(other, BASE_TAR, [], False))
    for _ in range(KILLS // 4):
        destroy_cim_layer(other)
        process = start_import(other, BASE_TAR, [], False)
        time.sleep(chance.uniform(0, longest))
        process.kill()
        finish(process)
        assert_sound(tmp_path / "cim-layers" / "base.cim")
        if not is_cim_layer(other):
            import_layer(BASE_TAR, other, sync=False)
        with ImageReader(tmp_path / "cim-layers" / "other.cim") as image:
            assert image.verify().ok
        assert (other / "layout").is_file() and (other / "blank.vhdx").is_file()


def test_a_reproducible_import_takes_the_place_of_what_a_crash_left(tmp_path: Path) -> None:
    base, child = tmp_path / "base", tmp_path / "child"
    import_layer(BASE_TAR, base, sync=False)
    import_layer(CHILD_TAR, child, [base], sync=False, reproducible=True)
    cims = tmp_path / "cim-layers"
    whole = snapshot(cims)
    (cims / "child.cim").unlink()
    import_layer(CHILD_TAR, child, [base], sync=False, reproducible=True)
    assert snapshot(cims) == whole


def test_object_ids_that_a_crash_left_without_their_regions_are_replaced(tmp_path: Path) -> None:
    base, cims = tmp_path / "base", tmp_path / "cim-layers"
    import_layer(BASE_TAR, base, sync=False, reproducible=True)
    whole = snapshot(cims)
    for file in (cims / "base.cim", *cims.glob("region_*")):
        file.unlink()
    import_layer(BASE_TAR, base, sync=False, reproducible=True)
    assert snapshot(cims) == whole


def test_a_region_set_in_use_is_never_taken_for_what_a_crash_left(tmp_path: Path) -> None:
    base, child = tmp_path / "base", tmp_path / "child"
    import_layer(BASE_TAR, base, sync=False, reproducible=True)
    import_layer(CHILD_TAR, child, [base], sync=False)
    cims = tmp_path / "cim-layers"
    (cims / "base.cim").unlink()  # by hand: the child still refers to the regions
    before = snapshot(cims)
    with pytest.raises(ImageExistsError, match="region_"):
        import_layer(BASE_TAR, base, sync=False, reproducible=True)
    assert snapshot(cims) == before
    assert_sound(cims / "child.cim")


def test_garbage_collection_removes_what_a_crash_left_and_nothing_else(tmp_path: Path) -> None:
    base, child = tmp_path / "base", tmp_path / "child"
    import_layer(BASE_TAR, base, sync=False)
    cims = tmp_path / "cim-layers"
    before = snapshot(cims)
    import_layer(CHILD_TAR, child, [base], sync=False)
    (cims / "child.cim").unlink()
    collect_garbage(cims, delete=True)
    assert snapshot(cims) == before


def test_a_temporary_file_that_a_crash_left_in_the_layer_directory_is_replaced(tmp_path: Path) -> None:
    directory = LayerDirectory(tmp_path)
    directory.write("file", b"old")
    (tmp_path / "file.tmp").write_bytes(b"cut sho")
    directory.write("file", b"new")
    assert snapshot(tmp_path) == {"file": b"new"}
