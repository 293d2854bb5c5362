"""What a crash leaves: every committed image whole, no half image, and the same work possible again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from cimfs_ext.reader import ImageReader
from cimlayer import destroy_cim_layer, import_layer, is_cim_layer
from cimlayer.cleaning import collect_garbage
from cimlayer.errors import ImageExistsError
from cimlayer.layerdir import LayerDirectory
from support.disk import Disk, restore
from support.images import assert_sound, read_files, snapshot

ROOT = Path(__file__).parents[1]
BASE_TAR, CHILD_TAR = ROOT / "examples" / "sample-layer.tar", ROOT / "examples" / "sample-child.tar"
KILLS = int(os.environ.get("CIMLAYER_CRASH_KILLS", "40"))
KINDS = ("create", "fork", "extend")
TORN_STATES = int(os.environ.get("CIMLAYER_CRASH_STATES", "4"))  # per operation

IMPORT = """
import sys
from cimlayer import import_layer
tar, layer, reproducible, *parents = sys.argv[1:]
print("ready", flush=True)
import_layer(tar, layer, parents, reproducible=reproducible == "reproducible", jobs=2)
"""


# ---- every prefix of what the library does to the directory ----


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    target = tmp_path_factory.mktemp("recorder") / "record_writes"
    sources = [ROOT / "tests" / "c" / "record_writes.c", *sorted((ROOT / "cimfs_ext" / "libcimfs").glob("*.c"))]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-Icimfs_ext"]
    subprocess.run([compiler, *flags, *map(str, sources), "-o", str(target)], cwd=ROOT, check=True)
    return target


def run_recorder(recorder: Path, directory: Path, kind: str) -> list[str]:
    journal = directory.parent / "journal"
    subprocess.run([str(recorder), str(directory), str(journal), kind], check=True)
    return journal.read_text("ascii").splitlines()


def images_in(directory: Path) -> dict[str, object]:
    """The content of every image that is visible, each of them sound."""
    found: dict[str, object] = {}
    for path in sorted(directory.glob("*.cim")):
        assert_sound(path)
        found[path.name] = read_files(path)
    return found


def images_before(kind: str, recorder: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    directory.mkdir()
    for earlier in KINDS[: KINDS.index(kind)]:
        run_recorder(recorder, directory, earlier)
    return directory


@pytest.mark.parametrize("kind", KINDS)
def test_any_prefix_of_the_operations_leaves_the_old_images_or_the_new(
    recorder: Path, tmp_path: Path, kind: str
) -> None:
    directory = images_before(kind, recorder, tmp_path)
    files = snapshot(directory)
    before = images_in(directory)
    journal = run_recorder(recorder, directory, kind)
    after = images_in(directory)
    assert after != before
    crashed = tmp_path / "crashed"
    seen = []
    disk = Disk(files)
    for done in range(len(journal) + 1):
        if done:
            disk.apply(journal[done - 1])
        states = [disk.killed(), disk.powerless(), *(disk.torn(done * 1000 + n) for n in range(TORN_STATES))]
        for n, state in enumerate(states):
            found = images_in(restore(crashed, state))
            assert found in (before, after), f"operation {done}, state {n}"
            if done == len(journal):
                assert found == after, f"a committed image is lost in state {n}"
            seen.append(found == after)
    assert True in seen and False in seen
    assert disk.killed() == snapshot(directory)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_change_succeeds_after_a_kill_at_any_operation(recorder: Path, tmp_path: Path, kind: str) -> None:
    directory = images_before(kind, recorder, tmp_path)
    disk = Disk(snapshot(directory))
    before = images_in(directory)
    journal = run_recorder(recorder, directory, kind)
    after = images_in(directory)
    crashed = tmp_path / "crashed"
    for line in journal:
        disk.apply(line)
        if images_in(restore(crashed, disk.killed())) == before:
            run_recorder(recorder, crashed, kind)
        assert images_in(crashed) == after, line[:80]


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


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills a process at once here")
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


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills a process at once here")
def test_a_killed_import_of_a_base_layer_can_be_run_again(tmp_path: Path) -> None:
    base, other = tmp_path / "base", tmp_path / "other"
    import_layer(BASE_TAR, base, sync=False)
    chance = random.Random(8)
    longest = duration(lambda: start_import(other, BASE_TAR, [], False))
    for _ in range(max(3, KILLS // 8)):
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
