"""Ctrl-C at any moment, also twice: what was being made is there, or nothing of it; what was being removed is gone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cimlayer
from cimlayer.host.interrupts import deferred, interruptible
from cimlayer.layer.garbage import collect_garbage
from cimlayer.layer.paths import get_cim_path_from_layer
from support.faults import Interrupts, at_every_place, failing
from support.interrupting import interrupted
from test_faults import (
    Work,
    collect,
    create_from_folder,
    create_from_tar,
    descriptors,
    destroy,
    export_base,
    extract_base,
    import_base,
    import_child,
    import_child_with_threads,
    import_image_with_threads,
    import_top_of_image,
    leave_garbage,
    remove_result,
    root,
    state,
)

__all__ = ["root"]  # the fixture

ROUNDS = int(os.environ.get("CIMLAYER_INTERRUPTS", "40"))  # of each work, at random lines

MAKING = (
    import_base,
    import_child,
    import_child_with_threads,
    import_top_of_image,
    import_image_with_threads,
    create_from_folder,
    create_from_tar,
)


def at_random_lines(root: Path, work: Work, again: Callable[[], object]) -> Iterator[None]:
    """Every second time there is one more interrupt, soon after the first: it comes while things are taken back."""
    with interrupted() as lines:
        work(root)
    again()
    chance = random.Random(work.__name__)
    for number in range(ROUNDS):
        first = chance.randrange(lines.count)
        before = descriptors()
        raised = False
        with interrupted({first, first + chance.randrange(1, 200)} if number % 2 else {first}) as ran:
            try:
                work(root)
            except KeyboardInterrupt:
                raised = True
        assert raised or ran.count <= first  # where no thread is waited for, there are fewer lines than were counted
        assert descriptors() == before, f"line {first} leaves a file open"
        yield


def at_every_call(root: Path, work: Work, again: Callable[[], object]) -> Iterator[None]:
    with failing(-1, Interrupts) as calls:
        work(root)
    again()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for number in at_every_place(calls.places, 1):
            before = descriptors()
            with failing(number, Interrupts) as calls, pytest.raises(KeyboardInterrupt):
                work(root)
            assert descriptors() == before, f"{calls.what} ({number}) leaves a file open"
            yield
    finally:
        signal.signal(signal.SIGINT, handler)


MOMENTS = pytest.mark.parametrize("moments", [at_random_lines, at_every_call])
Moments = Callable[[Path, Work, Callable[[], object]], Iterator[None]]


# An interrupt may come between the opening of a file and the "with" that holds it: then its end closes it.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@MOMENTS
@pytest.mark.parametrize("work", MAKING)
def test_an_interrupt_leaves_the_whole_or_nothing(root: Path, work: Work, moments: Moments) -> None:
    before = state(root)
    for _ in moments(root, work, lambda: remove_result(root, before)):
        remove_result(root, before)
        assert state(root) == before


@MOMENTS
def test_an_interrupted_export_leaves_the_whole_or_nothing(root: Path, moments: Moments) -> None:
    export_base(root)
    whole = (root / "layer").read_bytes()
    (root / "layer").unlink()
    for _ in moments(root, export_base, (root / "layer").unlink):
        if (root / "layer").exists():
            assert (root / "layer").read_bytes() == whole
            (root / "layer").unlink()


@MOMENTS
def test_an_interrupted_extraction_leaves_no_file_in_part(root: Path, moments: Moments) -> None:
    def again() -> None:
        for made in ("layer", "layer.metadata"):
            shutil.rmtree(root / made, ignore_errors=True)

    extract_base(root)
    whole = {path.relative_to(root): path.read_bytes() for path in (root / "layer").rglob("*") if path.is_file()}
    again()
    for _ in moments(root, extract_base, again):
        for path in (root / "layer").rglob("*"):
            assert path.is_dir() or path.read_bytes() == whole[path.relative_to(root)]
        again()


@MOMENTS
def test_an_interrupted_destroy_has_not_begun_or_is_finished(root: Path, moments: Moments) -> None:
    others = state(root)

    def again() -> None:
        nonlocal whole
        import_child(root)
        whole = state(root)

    whole: dict[str, tuple[int, int]] = {}
    again()
    for _ in moments(root, destroy, again):
        assert state(root) in (others, whole)
        if state(root) == others:
            again()


@MOMENTS
def test_an_interrupted_gc_removes_nothing_that_is_needed(root: Path, moments: Moments) -> None:
    needed = state(root)
    leave_garbage(root)
    for _ in moments(root, collect, lambda: leave_garbage(root)):
        assert needed.items() <= state(root).items()
        collect_garbage(root / "cim-layers", delete=True)
        assert state(root).keys() == needed.keys()
        leave_garbage(root)


# ---- what waits ----


def test_what_a_handler_raises_waits_and_cancels() -> None:
    cancel = cimlayer.CancellationToken()
    seen = []
    with interrupted(), pytest.raises(KeyboardInterrupt), deferred(cancel):
        signal.raise_signal(signal.SIGINT)
        seen.append(cancel.cancelled)
        cancel.raise_if_cancelled()
    assert seen == [True]


def test_a_handler_that_raises_nothing_runs_at_once_and_stops_nothing() -> None:
    cancel = cimlayer.CancellationToken()
    seen: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, _frame: seen.append(number))
    try:
        with deferred(cancel):
            signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGTERM]
        assert not cancel.cancelled
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_in_foreign_code_a_handler_may_raise_once() -> None:
    reached = []
    with interrupted(), pytest.raises(KeyboardInterrupt), deferred():
        try:
            with interruptible():
                signal.raise_signal(signal.SIGINT)
                reached.append("not")
        finally:
            signal.raise_signal(signal.SIGINT)  # while things are taken back
            reached.append("cleaned up")
    assert reached == ["cleaned up"]


def test_other_threads_are_not_interrupted_anyway() -> None:
    done = []

    def work() -> None:
        with deferred(), interruptible():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_layer_writer_that_was_interrupted_leaves_nothing(root: Path) -> None:
    before = state(root)
    with interrupted(), pytest.raises(KeyboardInterrupt), cimlayer.CimLayerWriter(root / "layer", [root / "base"]) as w:
        w.add("Hives\\SYSTEM_Delta", cimlayer.FileBasicInfo.at(0), 0)
        signal.raise_signal(signal.SIGINT)
    assert state(root) == before
    assert not get_cim_path_from_layer(root / "layer").exists()
