"""Many processes in one directory of layers: imports, forks of one parent, destroys and gc, some of them killed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import cimlayer
from cimfs_ext.reader import ImageReader
from cimlayer.errors import ImageBusyError, ImageExistsError, ImageNotFoundError
from cimlayer.layer.garbage import broken_images, collect_garbage
from support.containers import base_tar, child_tar
from support.images import assert_sound

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PROCESSES = 8
KILLS = int(os.environ.get("CIMLAYER_SHARING_KILLS", "40"))
BASE, CHILD = base_tar(a=b"1", b=b"2" * 70_000), child_tar(a=b"3" * 70_000, c=b"4")


def forked(work: Callable[[], object]) -> int:
    """The process ID of a process that does the work; it ends with 0, or prints what it raised."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def import_one(root: Path, name: str, parents: list[str], *, reproducible: bool = False) -> None:
    cimlayer.import_layer(
        io.BytesIO(CHILD if parents else BASE),
        root / name,
        [root / parent for parent in parents],
        sync=False,
        jobs=1,
        reproducible=reproducible,
        lock_timeout=120,
    )


# ---- as if one after the other ----

PLAN = [
    [("base", [])],
    [(f"child{n}", ["base"]) for n in range(PROCESSES)],
    [(f"grandchild{n}", [f"child{n % 3}", "base"]) for n in range(PROCESSES)],
]


def content(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


def test_a_directory_filled_by_eight_processes_is_that_of_one(tmp_path: Path) -> None:
    for name, parents in (layer for wave in PLAN for layer in wave):
        import_one(tmp_path / "one", name, parents, reproducible=True)
    for wave in PLAN:
        children = []
        for name, parents in wave:
            root = tmp_path / "many"
            children.append(forked(lambda: import_one(root, name, parents, reproducible=True)))  # noqa: B023
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(wave)
    assert content(tmp_path / "many") == content(tmp_path / "one")


def test_of_eight_processes_that_import_one_layer_one_does(tmp_path: Path) -> None:
    def attempt() -> None:
        with contextlib.suppress(ImageExistsError):
            import_one(tmp_path, "base", [], reproducible=True)
            (tmp_path / f"won by {os.getpid()}").touch()

    children = [forked(attempt) for _ in range(PROCESSES)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * PROCESSES
    assert len(list(tmp_path.glob("won by *"))) == 1
    assert_sound(tmp_path / "cim-layers" / "base.cim")


# ---- with kills ----


def work_at_random(root: Path, seed: int) -> None:
    """Endlessly, with few names, so that processes meet at them."""
    chance = random.Random(seed)
    while True:
        names = [f"layer{chance.randrange(6)}" for _ in range(2)]
        try:
            what = chance.randrange(8)
            if what < 1:
                import_one(root, names[0], [])
            elif what < 4:
                import_one(root, names[0], ["base"], reproducible=chance.random() < 0.5)
            elif what < 6:
                import_one(root, names[0], [names[1], "base"])
            elif what < 7:
                cimlayer.destroy_cim_layer(root / names[0], lock_timeout=0.1)
            else:
                collect_garbage(root / "cim-layers", delete=True)
        except (ImageBusyError, ImageExistsError, ImageNotFoundError, FileNotFoundError):
            pass  # somebody else has it, has made it or has destroyed it
        except ValueError as error:
            if "layer" not in str(error):  # not a layer below the other one, or its own parent
                raise
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # it has children
                raise


def reaped(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_processes_that_are_killed_at_random_break_nothing_of_the_others(tmp_path: Path) -> None:
    import_one(tmp_path, "base", [])
    chance = random.Random(1)
    children = [forked(lambda: work_at_random(tmp_path, seed)) for seed in range(PROCESSES)]  # noqa: B023
    try:
        for seed in range(PROCESSES, PROCESSES + KILLS):
            time.sleep(chance.uniform(0, 0.1))
            at = chance.randrange(PROCESSES)
            os.kill(children[at], signal.SIGKILL)
            assert reaped(children[at]) == -signal.SIGKILL, "it had failed before"
            children[at] = forked(lambda: work_at_random(tmp_path, seed))  # noqa: B023
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        ended = [reaped(child) for child in children]
    assert ended == [-signal.SIGKILL] * PROCESSES

    images = tmp_path / "cim-layers"
    collect_garbage(images, delete=True)
    assert collect_garbage(images) == []
    assert broken_images(images) == {}
    found = {path.stem for path in images.glob("*.cim")}
    for name in found:
        assert_sound(images / f"{name}.cim")
        with ImageReader(images / f"{name}.cim") as image:
            assert image.verify().ok
            is_base = len(image.region_sets) == 1
        if is_base:  # else a destroy has taken something that was not its own
            assert (tmp_path / name / "layout").exists()
            assert len(list((tmp_path / name / "Hives").iterdir())) == 5
    assert {path.name for path in tmp_path.iterdir()} == {*found, "cim-layers"}
    needed = {f"{name}.cim" for name in found}
    for name in found:
        with ImageReader(images / f"{name}.cim") as image:
            needed.update(file for one in image.region_sets for file in one.file_names())
    assert {path.name for path in images.iterdir()} == needed
