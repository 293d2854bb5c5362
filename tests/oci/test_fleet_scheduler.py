"""The order of many images' layers, and what becomes of failures: the scheduler alone, at a time that tests make up."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimlayer.blobs.digests import Digest, chain_ids
from cimlayer.errors import DigestMismatchError, FormatError, LimitError
from cimlayer.events import CancellationToken
from cimlayer.layer.store.keys import ByteOptions
from cimlayer.layer.store.layerstore import LayerStore
from cimlayer.limits import DEFAULT_LIMITS
from cimlayer.oci.fleet.driving import Arrival, Call, drive
from cimlayer.oci.fleet.jobs import (
    Busy,
    Failed,
    LayerJob,
    Made,
    Outcome,
    ParentGone,
    Resolved,
    ResolveJob,
    Run,
    look_up,
)
from cimlayer.oci.fleet.scheduler import ATTEMPTS, ImageResult, Scheduler, Task
from cimlayer.oci.planned import PlannedLayer
from cimlayer.oci.platforms import WINDOWS
from cimlayer.oci.selection import Layer
from cimlayer.oci.sources import BlobDescriptor

ROOT = Path("store")
RUN = Run(LayerStore(ROOT), "run", WINDOWS, ByteOptions(), True, DEFAULT_LIMITS)


def digest(text: str) -> Digest:
    return Digest("sha256", text.encode().hex().rjust(64, "0"))


def image(layers: str, sizes: dict[str, int] | None = None, there: str = "") -> Resolved:
    """One whose layers are called by letters, base first."""
    ids = [digest(name) for name in layers]
    planned = [
        PlannedLayer(
            Layer(BlobDescriptor(str(id_), (sizes or {}).get(name, 1)), id_), chain, ROOT / f"{layers[: at + 1]}", {}
        )
        for at, (name, id_, chain) in enumerate(zip(layers, ids, chain_ids(ids), strict=True))
    ]
    found = tuple(layer.imported(1, reused=True) if at < len(there) else None for at, layer in enumerate(planned))
    return Resolved("windows", None, "", tuple(planned), found)


class Fleet:
    """A scheduler whose images are known at once; ``fate`` says what becomes of each attempt at a layer."""

    def __init__(self, *images: Resolved, fate: Callable[[str, int], Outcome | Exception | None] = lambda *_: None):
        self.scheduler = Scheduler(RUN)
        self.images, self.fate = images, fate
        self.tried: list[tuple[str, int]] = []  # layers, and for which image
        self.now = 0.0
        self.results: dict[int, ImageResult] = {}
        for number, _ in enumerate(images):
            self.scheduler.add(number, str(number))

    def next(self) -> Task | None:
        """The next task that imports a layer."""
        while (task := self.scheduler.task(self.now)) is not None and isinstance(task.job, ResolveJob):
            self.scheduler.done(task, self.images[int(str(task.job.source))], self.now)
        return task

    def settle(self, task: Task) -> None:
        assert isinstance(task.job, LayerJob)
        key = task.job.layer.path.name
        self.tried.append((key, int(str(task.job.source))))
        outcome = self.fate(key, len([one for one in self.tried if one[0] == key]))
        if isinstance(outcome, Exception):
            self.scheduler.lost([task], outcome, self.now)
        else:
            self.scheduler.done(task, outcome or Made(task.job.layer.imported(1, reused=False)), self.now)

    def run(self, workers: int = 1) -> dict[int, ImageResult]:
        """Until all is over."""
        running: list[Task] = []
        while True:
            self.results |= {result.number: result for result in self.scheduler.results()}
            if self.scheduler.finished:
                return self.results
            while len(running) < workers and (task := self.next()) is not None:
                running.append(task)
            if running:
                self.settle(running.pop(0))
            elif not self.scheduler.finished:
                due = self.scheduler.next_time()
                assert due is not None, "nothing will ever happen"
                self.now = due

    @property
    def order(self) -> list[str]:
        return [key for key, _ in self.tried]

    @property
    def failed(self) -> dict[int, type[Exception]]:
        return {number: type(result.error) for number, result in self.results.items() if result.error is not None}


def test_each_layer_once_and_parents_first() -> None:
    fleet = Fleet(image("abc"), image("abd"), image("x"), image("abc"))
    assert len(fleet.run()) == 4
    assert sorted(fleet.order) == ["a", "ab", "abc", "abd", "x"]
    assert fleet.failed == {}
    made = fleet.results[1].image
    assert made is not None
    assert [layer.path.name for layer in made.layers] == ["a", "ab", "abd"]


def test_the_longest_way_goes_first() -> None:
    sizes = {"p": 10 << 20, "q": 200 << 20, "a": 30 << 20, "b": 20 << 20}
    fleet = Fleet(image("a", sizes), image("b", sizes), image("pq", sizes))
    fleet.run()
    assert fleet.order == ["p", "pq", "a", "b"]


def test_a_way_that_becomes_longer_while_it_waits_goes_first() -> None:
    scheduler = Scheduler(RUN)
    scheduler.add(0, "0")
    scheduler.add(1, "1")
    first = scheduler.task(0)
    second = scheduler.task(0)
    assert first is not None
    assert second is not None
    scheduler.done(first, image("b", {"b": 2 << 20}), 0)
    scheduler.done(second, image("a", {"a": 1 << 20}), 0)
    scheduler.add(2, "2")
    third = scheduler.task(0)
    assert third is not None
    scheduler.done(third, image("az", {"a": 1 << 20, "z": 9 << 20}), 0)
    assert [task.key for task in (scheduler.task(0), scheduler.task(0)) if task] == ["a", "b"]
    assert scheduler.task(0) is None


def test_layers_that_are_there_are_not_imported() -> None:
    fleet = Fleet(image("abc", there="ab"), image("abd", there="ab"), image("ab", there="ab"))
    fleet.run()
    assert sorted(fleet.order) == ["abc", "abd"]
    assert fleet.results[2].image is not None


BLOB = FormatError("a tar that is none", "x")
NOT_VERIFIED = [DigestMismatchError("x", "y", "z"), LimitError("files", 1, "x"), OSError(errno.ENOSPC, "full")]


@pytest.mark.parametrize("error", NOT_VERIFIED)
def test_a_layer_that_fails_in_one_image_is_taken_from_another(error: Exception) -> None:
    fleet = Fleet(image("ab"), image("ac"), fate=lambda key, time: Failed(error) if (key, time) == ("a", 1) else None)
    fleet.run()
    assert fleet.failed == {0: type(error)}
    assert fleet.tried == [("a", 0), ("a", 1), ("ac", 1)]


def test_what_is_wrong_with_a_verified_blob_is_wrong_with_it_in_all_images() -> None:
    fleet = Fleet(image("ab"), image("ac"), image("x"), fate=lambda key, time: Failed(BLOB) if key == "a" else None)
    fleet.run()
    assert fleet.failed == {0: FormatError, 1: FormatError}
    assert sorted(fleet.order) == ["a", "x"]


def test_what_is_transient_is_tried_again_later_and_not_for_ever() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "no")
    fleet = Fleet(image("a"), fate=lambda key, time: Failed(refused, True) if time < ATTEMPTS else None)
    fleet.run()
    assert fleet.failed == {}
    assert fleet.order == ["a"] * ATTEMPTS
    assert fleet.now > 1
    fleet = Fleet(image("a"), image("x"), fate=lambda key, _: Failed(refused, True) if key == "a" else None)
    fleet.run()
    assert fleet.failed == {0: ConnectionRefusedError}
    assert fleet.order.count("a") == ATTEMPTS


def test_a_layer_that_no_worker_survives_fails_every_image_with_its_blob_after_some_attempts() -> None:
    fleet = Fleet(image("ab"), image("ac"), image("x"), fate=lambda key, _: RuntimeError() if key == "a" else None)
    fleet.run()
    assert fleet.failed == {0: RuntimeError, 1: RuntimeError}
    assert fleet.order.count("a") == ATTEMPTS


def test_a_layer_that_somebody_else_imports_is_looked_at_again() -> None:
    fleet = Fleet(image("ab"), image("x"), fate=lambda key, time: Busy() if key == "a" and time < 20 else None)
    fleet.run()
    assert fleet.failed == {}
    assert fleet.order.index("x") < 3
    assert fleet.now > 10


def test_a_parent_that_was_removed_is_imported_again_but_not_for_ever() -> None:
    fleet = Fleet(image("ab"), fate=lambda key, time: ParentGone() if (key, time) == ("ab", 1) else None)
    fleet.run()
    assert fleet.failed == {}
    assert fleet.order == ["a", "ab", "a", "ab"]
    fleet = Fleet(image("ab"), image("x"), fate=lambda key, _: ParentGone() if key == "ab" else None)
    fleet.run()
    assert fleet.failed == {0: FileNotFoundError}


def test_an_image_that_comes_later_revives_a_layer_that_has_failed() -> None:
    fleet = Fleet(image("ab"), fate=lambda key, time: Failed(NOT_VERIFIED[0]) if (key, time) == ("a", 1) else None)
    fleet.run()
    fleet.images = (*fleet.images, image("ac"))
    fleet.scheduler.add(1, "1")
    fleet.run()
    assert fleet.failed == {0: DigestMismatchError}
    assert fleet.order == ["a", "a", "ac"]


def test_aborting_fails_what_has_no_result() -> None:
    scheduler = Scheduler(RUN)
    for number in range(3):
        scheduler.add(number, str(number))
    assert scheduler.task(0) is not None
    scheduler.abort(RuntimeError("gone"))
    assert scheduler.finished
    assert [(result.number, str(result.error)) for result in scheduler.results()] == [(n, "gone") for n in range(3)]


def looked_up(tasks: list[Task]) -> list[int]:
    """The images of a call."""
    return [task.image.number for task in tasks]


def many(count: int) -> Scheduler:
    scheduler = Scheduler(RUN)
    for number in range(count):
        scheduler.add(number, str(number))
    return scheduler


def test_images_are_looked_up_together_and_a_layer_has_a_call_of_its_own() -> None:
    scheduler = many(10)
    first, second = scheduler.tasks(0), scheduler.tasks(0)
    assert (looked_up(first), looked_up(second), scheduler.tasks(0)) == (list(range(8)), [8, 9], [])
    for task, name in zip(first, "abcdefgh", strict=True):
        scheduler.done(task, image(name), 0)
    assert [[task.key for task in scheduler.tasks(0)] for _ in range(8)] == [[name] for name in "abcdefgh"]


def test_images_that_take_long_to_look_up_have_calls_of_their_own() -> None:
    scheduler = many(10)
    tasks = scheduler.tasks(0)
    scheduler.done(tasks[0], Failed(BLOB), 0)
    scheduler.left(tasks[1:])
    assert [looked_up(scheduler.tasks(0)) for _ in range(9)] == [[number] for number in range(1, 10)]


def test_of_images_whose_worker_was_lost_each_is_tried_alone() -> None:
    scheduler = many(3)
    scheduler.lost(scheduler.tasks(0), RuntimeError("killed"), 0)
    for tasks in [scheduler.tasks(0) for _ in range(3)]:
        if looked_up(tasks) == [1]:
            scheduler.lost(tasks, RuntimeError("killed"), 0)
        else:
            scheduler.done(tasks[0], image("a"), 0)
    for _ in range(ATTEMPTS - 1):
        due = scheduler.next_time()
        assert due is not None
        (task,) = scheduler.tasks(due)
        if task.key is not None:  # the others' layer
            scheduler.done(task, Made(task.job.layer.imported(1, reused=False)), due)  # type: ignore[union-attr]
            (task,) = scheduler.tasks(due)
        scheduler.lost([task], RuntimeError("killed"), due)
    assert {result.number: result.error is None for result in scheduler.results()} == {0: True, 1: False, 2: True}


def test_a_call_takes_no_further_image_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, count in ((-1.0, 1), (60.0, 5)):
        monkeypatch.setattr("cimlayer.oci.fleet.jobs.LOOKING_UP", seconds)
        assert [type(outcome) for outcome in look_up([ResolveJob(RUN, "-")] * 5)] == [Failed] * count


FATES = st.sampled_from(
    [
        Failed(NOT_VERIFIED[0]),
        Failed(BLOB),
        Failed(TimeoutError(errno.ETIMEDOUT, ""), True),
        Busy(),
        ParentGone(),
        RuntimeError(),
        *[None] * 12,
    ]
)


@given(
    st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=8),
    st.lists(FATES, max_size=40),
    st.integers(1, 4),
)
def test_whatever_happens_every_image_has_one_result_and_is_complete_if_it_says_so(
    images: list[str], fates: list[Outcome | Exception | None], workers: int
) -> None:
    made: set[str] = set()
    left = list(fates)

    def fate(key: str, _time: int) -> Outcome | Exception | None:
        assert len(key) == 1 or key[:-1] in made
        outcome = left.pop() if left else None
        if outcome is None:
            made.add(key)
        return outcome if not isinstance(outcome, ParentGone) or len(key) > 1 else Busy()

    fleet = Fleet(*map(image, images), fate=fate)
    results = fleet.run(workers)
    assert sorted(results) == list(range(len(images)))
    for number, name in enumerate(images):
        assert (results[number].image is None) == (results[number].error is not None)
        if results[number].image is not None:
            assert name in made
    if all(one is None or isinstance(one, Busy) for one in fates):
        assert fleet.failed == {}


class FullExecutor(Executor):
    """One worker, also the clock: a layer is busy at first, and another takes a minute."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waits: list[float] = []
        self.running: list[tuple[float, Call, list[Outcome]]] = []
        self.tasks: dict[Call, Sequence[Task]] = {}
        self.busy = 1

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Call = Future()
        job = args[0]
        if isinstance(job, list):
            self.running.append((self.time, future, [image(str(each.source)) for each in job]))
        elif self.busy and job.layer.path.name == "a":
            self.busy -= 1
            self.running.append((self.time, future, [Busy()]))
        else:
            self.running.append((self.time + 60, future, [Made(job.layer.imported(1, reused=False))]))
        return future

    def now(self) -> float:
        return self.time

    def watch(self, future: Call, tasks: Sequence[Task]) -> None:
        self.tasks[future] = tasks

    def next(self, timeout: float) -> Arrival | None:
        self.waits.append(timeout)
        due, future, outcomes = self.running[0]
        if due > self.time + timeout:
            self.time += timeout
            return None
        self.running.pop(0)
        self.time = max(due, self.time)
        future.set_result(outcomes)
        return future, self.tasks.pop(future)


def test_a_retry_that_is_due_while_every_worker_is_busy_does_not_make_the_driver_spin() -> None:
    scheduler, cluster = Scheduler(RUN), FullExecutor()
    for number, name in enumerate(("a", "x")):
        scheduler.add(number, name)
    results = drive(scheduler, cluster, 1, clock=cluster, progress=None, cancel=CancellationToken(), stop=lambda: None)
    assert [result.error for result in results] == [None, None]
    assert cluster.time >= 120
    assert cluster.waits.count(0.0) <= 6
