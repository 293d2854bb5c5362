"""Between a scheduler and an executor: jobs go out, and what became of them comes back."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from typing import Protocol

from cimlayer.events import (
    CancellationToken,
    LayerDone,
    LayerReused,
    LayerStarted,
    LayerWarning,
    ProgressCallback,
)
from cimlayer.oci.fleet.jobs import LayerJob, Made, Outcome, Resolved, ResolveJob, import_one, look_up
from cimlayer.oci.fleet.scheduler import ImageResult, Scheduler, Task

LONGEST_WAIT = 0.2  # seconds between two looks at whether everything was cancelled
_LONGEST_FAREWELL = 60.0  # seconds for what runs to stop

_log = logging.getLogger("cimlayer")

Call = Future[list[Outcome]]
Arrival = tuple[Call, Sequence[Task]]


class Clock(Protocol):
    """Time, and waiting for what happens; a simulation has its own."""

    def now(self) -> float:
        """Seconds."""

    def watch(self, future: Call, tasks: Sequence[Task]) -> None:
        """The future is something that may happen."""

    def next(self, timeout: float) -> Arrival | None:
        """The next future that is done; None after that many seconds."""


class WallClock:
    """The time of day."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self.now = time.monotonic

    def watch(self, future: Call, tasks: Sequence[Task]) -> None:
        """The future is something that may happen."""
        future.add_done_callback(lambda done: self._arrived.put((done, tasks)))

    def next(self, timeout: float) -> Arrival | None:
        """The next future that is done; None after that many seconds."""
        try:
            return self._arrived.get(timeout=timeout)
        except queue.Empty:
            return None


def drive(
    scheduler: Scheduler,
    executor: Executor,
    at_once: int | None,
    *,
    clock: Clock,
    progress: ProgressCallback | None,
    cancel: CancellationToken,
    stop: Callable[[], None],
    alive: Callable[[], None] = lambda: None,
) -> Iterator[ImageResult]:
    """Have an executor do a scheduler's tasks until all images are over; yields results as they come.

    ``at_once`` is how many calls the executor gets at a time; None for all that can be made. However this ends, what
    still runs is asked to end by ``stop``, and waited for. ``alive`` is called now and then.
    """
    running: set[Call] = set()
    report = _Report(progress)
    try:
        while True:
            yield from scheduler.results()
            if scheduler.finished:
                return
            cancel.raise_if_cancelled()
            alive()
            while at_once is None or len(running) < at_once:
                tasks = scheduler.tasks(clock.now())
                if not tasks:
                    break
                try:
                    future = _submit(executor, tasks)
                except RuntimeError as error:  # it is broken, or was shut down
                    scheduler.abort(error)
                    break
                running.add(future)
                clock.watch(future, tasks)
                report.started(tasks)
            due = scheduler.next_time() if at_once is None or len(running) < at_once else None
            timeout = LONGEST_WAIT if due is None else min(max(due - clock.now(), 0.0), LONGEST_WAIT)
            arrival = clock.next(timeout)
            if arrival is not None:
                running.remove(arrival[0])
                _settle(scheduler, *arrival, clock.now(), report)
    finally:
        stop()
        for future in running:
            future.cancel()
        wait(running, timeout=_LONGEST_FAREWELL)


def _submit(executor: Executor, tasks: Sequence[Task]) -> Call:
    job = tasks[0].job
    if isinstance(job, LayerJob):
        return executor.submit(import_one, job)
    return executor.submit(look_up, [task.job for task in tasks if isinstance(task.job, ResolveJob)])


def _settle(scheduler: Scheduler, future: Call, tasks: Sequence[Task], now: float, report: _Report) -> None:
    error: Exception
    try:
        outcomes = future.result(timeout=0)
    except Exception as failure:  # errors of jobs are returned, so this is the executor's
        error = failure
    except BaseException as interrupt:  # of the worker, not of this process
        error = RuntimeError(f"the worker was interrupted ({type(interrupt).__name__})")
    else:
        for task, outcome in zip(tasks, outcomes, strict=False):
            scheduler.done(task, outcome, now)
            report.ended(task, outcome)
        if len(outcomes) < len(tasks):
            scheduler.left(tasks[len(outcomes) :])
        return
    report.lost(tasks, error)
    scheduler.lost(tasks, error, now)


class _Report:
    """Events, and lines for the log."""

    def __init__(self, progress: ProgressCallback | None) -> None:
        self._progress = progress or (lambda _: None)
        self._reused: set[str] = set()

    def started(self, tasks: Sequence[Task]) -> None:
        """Jobs were given to the executor."""
        for task in tasks:
            if isinstance(task.job, LayerJob):
                layer = task.job.layer
                number, count = task.position
                self._progress(LayerStarted(layer.path.name, layer.digest, number, count, layer.layer.blob.size))

    def ended(self, task: Task, outcome: Outcome) -> None:
        """A job came to its end."""
        if isinstance(outcome, Resolved):
            for number, found in enumerate(outcome.found, 1):
                if found is not None and found.path.name not in self._reused:
                    self._reused.add(found.path.name)
                    self._progress(LayerReused(found.path.name, found.digest, number, len(outcome.found), found.bytes))
        elif isinstance(outcome, Made):
            layer = outcome.layer
            for text in outcome.warnings:
                self._progress(LayerWarning(layer.path.name, text))
            if layer.reused:
                self._progress(LayerReused(layer.path.name, layer.digest, *task.position, layer.bytes))
                return
            self._reused.add(layer.path.name)
            _log.info("layer %s: %d bytes of files in %.3f s", layer.path.name, layer.bytes, layer.seconds)
            self._progress(LayerDone(layer.path.name, outcome.entries, layer.bytes, layer.seconds, layer.utility_vm))

    def lost(self, tasks: Sequence[Task], error: Exception) -> None:
        """The worker of jobs was lost."""
        text = f"its worker was lost ({type(error).__name__}: {error})"
        for task in tasks:
            name = task.key or f"image {task.image.number}"
            _log.info("%s: %s", name, text)  # no warning: it is taken up again
            if task.key is not None:
                self._progress(LayerWarning(name, text))
