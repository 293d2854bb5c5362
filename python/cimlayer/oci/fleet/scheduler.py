"""Which job is next: each layer once, parents before children, the longest way to go first.

This knows neither executors nor the time of day: whoever drives it says what became of each job and what time it is, so
that a simulation drives the same code.
"""

from __future__ import annotations

import errno
import heapq
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

from cimlayer.errors import DigestMismatchError, FormatError, LimitError
from cimlayer.oci.fleet.jobs import Busy, Failed, Job, LayerJob, Made, Outcome, Resolved, ResolveJob, Run, Source
from cimlayer.oci.imported import ImportedImage, ImportedLayer
from cimlayer.oci.planned import PlannedLayer

ATTEMPTS = 4  # at what may succeed the next time
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 20.0  # seconds before the next attempt
_BUSY_WAIT, _LONGEST_BUSY_WAIT = 0.1, 5.0  # seconds before the next look at what somebody else is importing
_OVERHEAD = 8 << 20  # bytes whose import takes as long as what every layer costs
_UNKNOWN_SIZE = 64 << 20
_LOOKED_UP = 8  # images for each layer, as long as there are both
_TOGETHER = 8  # images that are looked up in one call

Key = TypeVar("Key")


@dataclass(slots=True, frozen=True)
class ImageResult:
    """What became of one of many images: ``image``, or the ``error`` that it failed with.

    ``number`` is its place among the sources, from 0, ``source`` is what was given there.
    """

    number: int
    source: Source
    image: ImportedImage | None
    error: Exception | None


class _State(Enum):
    WAITING = auto()  # for its parent, or for an image that wants it
    READY = auto()
    RUNNING = auto()
    DONE = auto()


@dataclass(slots=True, eq=False)
class _Image:
    """An image that is being imported."""

    number: int
    source: Source
    given: Source
    resolved: Resolved | None = None
    over: bool = False
    alone: bool = False  # it was looked up together with others when the worker was lost
    attempts: int = 0


@dataclass(slots=True, eq=False)
class _Layer:
    """A layer of one image or more: ``wanted`` has each, with the layer as that image has it."""

    key: str
    parent: _Layer | None
    wanted: deque[tuple[_Image, PlannedLayer]] = field(default_factory=deque)
    children: list[_Layer] = field(default_factory=list)
    tops: list[_Image] = field(default_factory=list)  # the images whose top layer it is
    state: _State = _State.WAITING
    way: int = 0  # bytes of the longest way from here to a top, this layer included
    attempts: int = 0
    looks: int = 0
    result: ImportedLayer | None = None


@dataclass(slots=True)
class Task:
    """A job that is to be done, and for whom."""

    job: Job
    subject: _Image | _Layer
    image: _Image

    @property
    def key(self) -> str | None:
        """The layer that is imported, if one is."""
        return self.subject.key if isinstance(self.subject, _Layer) else None

    @property
    def position(self) -> tuple[int, int]:
        """Which layer of the image it is, from 1, and of how many."""
        layers = self.image.resolved.layers if self.image.resolved is not None else ()
        keys = [layer.path.name for layer in layers]
        return keys.index(self.key) + 1 if self.key in keys else 0, len(keys)


class _Queue(Generic[Key]):
    """Things by priority; of equal ones, the first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key]] = []
        self._count = itertools.count()

    def push(self, priority: float, thing: Key) -> None:
        heapq.heappush(self._heap, (priority, next(self._count), thing))

    def pop(self) -> Key:
        return heapq.heappop(self._heap)[2]

    def first(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def __bool__(self) -> bool:
        return bool(self._heap)


class Scheduler:
    """Hands out tasks, takes what became of them, and has the results of images."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._layers: dict[str, _Layer] = {}
        self._images: deque[_Image] = deque()  # to be resolved
        self._ready: _Queue[_Layer] = _Queue()
        self._later: _Queue[_Image | _Layer] = _Queue()
        self._results: deque[ImageResult] = deque()
        self._open: set[_Image] = set()
        self._looked_up = 0  # images since the last layer
        self._together = _TOGETHER

    def add(self, number: int, source: Source, given: Source | None = None) -> None:
        """One more image; its result has the source as it was ``given``."""
        image = _Image(number, source, source if given is None else given)
        self._images.append(image)
        self._open.add(image)

    @property
    def finished(self) -> bool:
        """Whether every image has its result."""
        return not self._open

    def results(self) -> Iterator[ImageResult]:
        """The results that there are, each once."""
        while self._results:
            yield self._results.popleft()

    def tasks(self, now: float) -> list[Task]:
        """What one call of the executor is to do: one layer, or some images to look up; nothing if there is none now.

        Where an image is a file, looking it up takes less time than a call of dask.
        """
        first = self.task(now)
        if first is None:
            return []
        tasks = [first]
        if isinstance(first.subject, _Image) and not first.subject.alone:
            while self._images and not self._images[0].alone and len(tasks) < self._together:
                tasks.append(self._look_up())
        return tasks

    def task(self, now: float) -> Task | None:
        """The next task, if there is one now."""
        while self._later and (self._later.first() or 0.0) <= now:
            subject = self._later.pop()
            if isinstance(subject, _Image):
                self._images.append(subject)
            elif subject.state is _State.WAITING:
                self._make_ready(subject)
        # Looking images up is short, and decides what goes first; but who has a long list wants to see layers, too.
        if self._images and self._looked_up < _LOOKED_UP:
            return self._look_up()
        return self._import() or (self._look_up() if self._images else None)

    def _look_up(self) -> Task:
        self._looked_up += 1
        image = self._images.popleft()
        return Task(ResolveJob(self._run, image.source), image, image)

    def _import(self) -> Task | None:
        while self._ready:
            layer = self._ready.pop()
            if layer.state is not _State.READY:
                continue  # it was pushed twice, since its way became longer
            chosen = _chosen(layer)
            if chosen is None:
                layer.state = _State.WAITING
                continue
            layer.state = _State.RUNNING
            self._looked_up = 0
            parent = layer.parent.key if layer.parent is not None else None
            return Task(LayerJob(self._run, chosen[0].source, chosen[1], parent), layer, chosen[0])
        return None

    def next_time(self) -> float | None:
        """When :meth:`task` may have something that it does not have now; None if something must be done before."""
        return self._later.first()

    # ---- what became of a task ----

    def done(self, task: Task, outcome: Outcome, now: float) -> None:
        """The task has ended."""
        if isinstance(outcome, Resolved):
            self._plan(task.image, outcome)
        elif isinstance(outcome, Made):
            assert isinstance(task.subject, _Layer)
            self._complete(task.subject, outcome.layer)
        elif isinstance(outcome, Failed):
            if outcome.transient:
                self._again(task, outcome.error, now)
            else:
                self._failed(task, outcome.error, everywhere=_is_in_blob(outcome.error))
        elif isinstance(outcome, Busy):
            assert isinstance(task.subject, _Layer)
            layer = task.subject
            layer.state = _State.WAITING
            self._later.push(now + min(_BUSY_WAIT * 2**layer.looks, _LONGEST_BUSY_WAIT), layer)
            layer.looks = min(layer.looks + 1, 10)
        else:
            self._parent_gone(task, now)

    def left(self, tasks: Sequence[Task]) -> None:
        """A call had no time for these images, so looking up takes long: from now on, each has a call of its own."""
        self._together = 1
        self._images.extendleft(task.image for task in reversed(tasks))

    def lost(self, tasks: Sequence[Task], error: Exception, now: float) -> None:
        """The worker of these was lost; a layer that no worker survives is the same layer in all images."""
        if len(tasks) == 1:
            self._again(tasks[0], error, now, everywhere=True)
            return
        for task in tasks:  # nobody can say which of them it was
            task.image.alone = True
            self._images.append(task.image)

    def _again(self, task: Task, error: Exception, now: float, *, everywhere: bool = False) -> None:
        subject = task.subject
        subject.attempts += 1
        if subject.attempts >= ATTEMPTS:
            self._failed(task, error, everywhere=everywhere)
            return
        if isinstance(subject, _Layer):
            subject.state = _State.WAITING
        self._later.push(now + min(_FIRST_WAIT * 2**subject.attempts, _LONGEST_WAIT), subject)

    def abort(self, error: Exception) -> None:
        """Nothing more can be done: all images without a result have failed."""
        for image in sorted(self._open, key=lambda image: image.number):
            self._fail(image, error)

    # ---- inside ----

    def _plan(self, image: _Image, resolved: Resolved) -> None:
        image.resolved = resolved
        parent: _Layer | None = None
        chain = []
        for planned, found in zip(resolved.layers, resolved.found, strict=True):
            layer = self._layers.get(planned.path.name)
            if layer is None:
                layer = self._layers[planned.path.name] = _Layer(planned.path.name, parent)
                if parent is not None:
                    parent.children.append(layer)
            layer.wanted.append((image, planned))
            if found is not None and layer.state in (_State.WAITING, _State.READY):
                self._complete(layer, found)
            chain.append(layer)
            parent = layer
        top = chain[-1]
        top.tops.append(image)
        top.wanted.rotate(1)  # the image whose top it is knows how it runs
        way = 0
        for layer in reversed(chain):
            if layer.state is _State.DONE:
                break
            size = layer.wanted[0][1].layer.blob.size
            way += _OVERHEAD + (_UNKNOWN_SIZE if size is None else size)
            longer, layer.way = way > layer.way, max(way, layer.way)
            if layer.state is _State.READY and longer:
                self._ready.push(-layer.way, layer)
        for layer in chain:
            if layer.state is _State.WAITING:
                self._make_ready(layer)
        if top.state is _State.DONE:
            self._succeed(image)

    def _make_ready(self, layer: _Layer) -> None:
        if layer.parent is None or layer.parent.state is _State.DONE:
            layer.state = _State.READY
            self._ready.push(-layer.way, layer)

    def _complete(self, layer: _Layer, result: ImportedLayer) -> None:
        layer.state, layer.result = _State.DONE, result
        layer.attempts = 0
        for child in layer.children:
            if child.state is _State.WAITING:
                self._make_ready(child)
        for image in layer.tops:
            if not image.over:
                self._succeed(image)

    def _failed(self, task: Task, error: Exception, *, everywhere: bool) -> None:
        """The image that the task was for has failed.

        The layer may be all right in another image, but if the error is ``everywhere``, not in one with the same blob.
        """
        subject = task.subject
        if isinstance(subject, _Image):
            self._fail(subject, error)
            return
        subject.attempts = 0
        for image, planned in subject.wanted:
            if everywhere and isinstance(task.job, LayerJob) and planned.digest == task.job.layer.digest:
                self._fail(image, error)
        self._fail(task.image, error)
        subject.state = _State.WAITING
        self._make_ready(subject)

    def _parent_gone(self, task: Task, now: float) -> None:
        layer = task.subject
        assert isinstance(layer, _Layer)
        parent = layer.parent
        if parent is not None and parent.state is _State.DONE:
            parent.state = _State.WAITING
            self._make_ready(parent)
        error = FileNotFoundError(errno.ENOENT, "its parent was removed again and again", layer.key)
        self._again(task, error, now)

    def _succeed(self, image: _Image) -> None:
        resolved = image.resolved
        assert resolved is not None
        layers = [result for planned in resolved.layers if (result := self._layers[planned.path.name].result)]
        assert len(layers) == len(resolved.layers)
        made = ImportedImage(layers[-1].path, resolved.platform, resolved.digest, resolved.config_digest, tuple(layers))
        self._end(image, ImageResult(image.number, image.given, made, None))

    def _fail(self, image: _Image, error: Exception) -> None:
        if not image.over:
            self._end(image, ImageResult(image.number, image.given, None, error))

    def _end(self, image: _Image, result: ImageResult) -> None:
        image.over = True
        self._open.discard(image)
        self._results.append(result)


def _chosen(layer: _Layer) -> tuple[_Image, PlannedLayer] | None:
    """The image to take a layer from: the first that has not failed."""
    while layer.wanted and layer.wanted[0][0].over:
        layer.wanted.popleft()
    return layer.wanted[0] if layer.wanted else None


def _is_in_blob(error: Exception) -> bool:
    """Whether an error is in the content of a blob whose digest is right: a wrong digest is reported first."""
    return isinstance(error, FormatError) and not isinstance(error, (DigestMismatchError, LimitError))
