"""ImageReader.verify with several threads: what it finds, and how it ends, is the same for any number of them."""

from __future__ import annotations

import _thread
import random
import shutil
from pathlib import Path

import pytest

from cimfs_ext.reader import ImageReader
from cimfs_ext.reports import VerifyReport
from cimlayer import CancellationToken, OperationCancelledError
from support.images import make_image

SIZE = 3 << 20
COUNT = 9  # enough to be divided among more than four threads
SMALL = 500


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    contents = random.Random(6)
    large = {f"{number}": contents.randbytes(SIZE) for number in range(COUNT)}
    small = {f"s{number}": b"%d" % number for number in range(SMALL)}
    return make_image(tmp_path_factory.mktemp("sound"), "a.cim", {**large, **small})


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    shutil.copytree(sound.parent, tmp_path / "copy")
    return tmp_path / "copy" / sound.name


def verify(path: Path, jobs: int) -> VerifyReport:
    with ImageReader(path) as image:
        return image.verify(jobs=jobs)


def test_sound_image(sound: Path) -> None:
    alone = verify(sound, 1)
    assert alone.ok
    assert alone.files == COUNT + SMALL
    assert alone.bytes > COUNT * SIZE
    for jobs in (2, 3, 50):
        assert verify(sound, jobs) == alone


@pytest.mark.parametrize("seed", range(6))
def test_damaged_content_and_content_ids(damaged: Path, seed: int) -> None:
    choice = random.Random(seed)
    [content] = damaged.parent.glob("region_*_1")
    [ids] = damaged.parent.glob("objectid_*_1")
    for path in [content] * 6 + [ids] * 2:
        with path.open("r+b") as file:
            at = choice.randrange(64, path.stat().st_size)
            file.seek(at)
            [byte] = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 0x40]))
    alone = verify(damaged, 1)
    assert not alone.ok
    assert verify(damaged, 2) == alone
    assert verify(damaged, 5) == alone


@pytest.mark.parametrize("kind", ["region", "objectid"])
def test_missing_file(damaged: Path, kind: str) -> None:
    [missing] = damaged.parent.glob(f"{kind}_*_1")
    missing.unlink()
    alone = verify(damaged, 1)
    assert not alone.ok or alone.unjudged
    assert verify(damaged, 4) == alone


def test_content_that_ends_too_early(damaged: Path) -> None:
    with ImageReader(damaged) as image:
        offset, _ = image.location("4")
        [content] = damaged.parent.glob("region_*_1")
        with content.open("r+b") as file:
            file.truncate((offset & ((1 << 48) - 1)) + 1000)
        alone = image.verify(jobs=1)
        assert not alone.ok
        assert image.verify(jobs=4) == alone


def test_progress_never_goes_back(sound: Path) -> None:
    seen: list[int] = []
    with ImageReader(sound) as image:
        report = image.verify(seen.append, jobs=4)
    assert seen == sorted(seen)
    assert not seen or seen[-1] <= report.bytes


@pytest.mark.parametrize("jobs", [1, 2])
def test_it_is_stopped_by_its_progress_and_by_a_token(sound: Path, jobs: int) -> None:
    token = CancellationToken()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with ImageReader(sound) as image:
        with pytest.raises(KeyboardInterrupt):
            while True:  # the other thread may leave this one too little to report anything
                image.verify(interrupt, jobs=jobs)
        with pytest.raises(OperationCancelledError):
            while True:
                image.verify(lambda _: token.cancel(), jobs=jobs, cancel=token)
        assert image.verify(jobs=4).ok


def test_an_interrupt_while_it_waits_for_other_threads(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allocate = _thread.allocate_lock

    class Interrupted:
        def __init__(self) -> None:
            self.lock, self.interrupted = allocate(), False
            self.release = self.lock.release

        def acquire(self, timeout: float = -1) -> bool:
            if timeout >= 0 and not self.interrupted:
                self.interrupted = True
                raise KeyboardInterrupt
            return self.lock.acquire(timeout=timeout)

    with ImageReader(sound) as image:
        monkeypatch.setattr(_thread, "allocate_lock", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            image.verify(jobs=3)
        monkeypatch.undo()
        assert image.verify(jobs=3).ok


def test_without_a_thread_to_help(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    alone = verify(sound, 1)
    monkeypatch.setattr(_thread, "start_new_thread", fail)
    assert verify(sound, 4) == alone


def test_no_threads_at_all(sound: Path) -> None:
    with ImageReader(sound) as image, pytest.raises(ValueError, match="jobs"):
        image.verify(jobs=0)
