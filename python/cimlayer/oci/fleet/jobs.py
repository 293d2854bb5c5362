"""What workers do, in whatever process and on whatever machine: look an image up, import one layer."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from cimlayer.blobs.readahead import PieceReader
from cimlayer.errors import OperationCancelledError
from cimlayer.events import CancellationToken, Event, LayerCommitting, LayerWarning
from cimlayer.host.interrupts import deferred
from cimlayer.layer.standard import RECORD
from cimlayer.layer.store.claims import Claim
from cimlayer.layer.store.keys import ByteOptions
from cimlayer.layer.store.layerstore import LayerStore
from cimlayer.layer.store.staging import ParentGoneError, Staging, settle
from cimlayer.limits import Limits
from cimlayer.oci.imported import ImportedLayer
from cimlayer.oci.locations import OpenedSource, opened_source
from cimlayer.oci.origins import RECORD_LIMIT
from cimlayer.oci.planned import PlannedLayer, WriterOptions, check_presence, layer_stream, plan_layers, write_planned
from cimlayer.oci.platforms import Platform
from cimlayer.oci.selection import select
from cimlayer.oci.sources import ImageSource
from cimlayer.tasks import LayerTask

LOOKING_UP = 0.2  # seconds after which a call takes no further image

Opener = Callable[[CancellationToken], AbstractContextManager["str | ImageSource"]]
Source = str | os.PathLike[str] | ImageSource | Opener

# What may be otherwise the next time: networks, network file systems, what others hold, what the machine is short of.
_TRANSIENT = {
    getattr(errno, name)
    for name in (
        "EAGAIN", "EBUSY", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "EINTR", "EIO",
        "EMFILE", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ENFILE", "ENOBUFS", "ENOLCK", "ENOMEM", "EPIPE", "ESTALE",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
}  # fmt: skip


@dataclass(slots=True, frozen=True)
class Run:
    """What all jobs of one call have in common. ``name`` is that of its file in the store."""

    store: LayerStore
    name: str
    platform: Platform
    options: ByteOptions
    sync: bool
    limits: Limits

    def wanted(self) -> bool:
        """Whether the call still wants its jobs done."""
        path = self.store.layout.runs / self.name
        try:
            if os.name == "posix":
                os.close(os.open(path, os.O_RDONLY))  # unlike stat, never from the cache of a network file system
            else:
                path.stat()  # while it is open, nobody could remove it
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True


@dataclass(slots=True, frozen=True)
class Resolved:
    """A container image; of each layer, base first, what the store has."""

    platform: str
    digest: str | None
    config_digest: str
    layers: tuple[PlannedLayer, ...]
    found: tuple[ImportedLayer | None, ...]


@dataclass(slots=True, frozen=True)
class Made:
    """A layer is in the store."""

    layer: ImportedLayer
    entries: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Failed:
    """Why not; ``transient`` if it may succeed the next time."""

    error: Exception
    transient: bool = False


class Busy:
    """Somebody else is importing the layer, or removing it."""


class ParentGone:
    """The layer's parent is not in the store any more."""


Outcome = Resolved | Made | Failed | Busy | ParentGone


@dataclass(slots=True, frozen=True)
class ResolveJob:
    """Read an image's documents, and look its layers up."""

    run: Run
    source: Source

    def work(self, cancel: CancellationToken) -> Outcome:
        """Do it."""
        run = self.run
        if self.source == "-":
            raise ValueError("standard input cannot be read by a worker: name a file")
        with opened(self.source, cancel, run.limits) as (images, named):
            image = select(images, run.platform, named, cancel.raise_if_cancelled)
            layout = run.store.layout
            layers = plan_layers(
                images.name, image, lambda id_: layout.layer(run.options.key(id_)), run.options.changed()
            )
            found = tuple(_found(run.store, layer) for layer in layers)
            _check_order(layers, found)
            check_presence(images, [layer for layer, there in zip(layers, found, strict=True) if there is None])
        return Resolved(str(image.platform), image.digest, image.config_digest, tuple(layers), found)


@dataclass(slots=True, frozen=True)
class LayerJob:
    """Import a layer of an image into the store; its parent is there."""

    run: Run
    source: Source
    layer: PlannedLayer
    parent: str | None

    def work(self, cancel: CancellationToken) -> Outcome:
        """Do it, unless somebody else has done so, or is about to."""
        run, layout, key = self.run, self.run.store.layout, self.layer.path.name
        found = _found(run.store, self.layer)
        if found is not None:
            return Made(found)
        if run.options.source_date_epoch != os.environ.get("SOURCE_DATE_EPOCH"):
            raise ValueError("SOURCE_DATE_EPOCH is not the same for the worker and for its caller")
        layout.make()
        claim = Claim.take(layout.claims, key, lambda work: settle(layout, work))
        if claim is None:
            return Busy()
        try:
            with claim.kept(cancel, run.wanted):
                found = _found(run.store, self.layer)  # published before the claim was taken
                return (
                    Made(found) if found is not None else self._make(Staging(layout, key, self.parent, claim), cancel)
                )
        except FileExistsError:
            found = _found(run.store, self.layer)
            if found is None:
                raise
            return Made(found)
        except (OSError, OperationCancelledError) as error:
            if claim.path.exists():
                raise
            raise OSError(errno.ESTALE, "the claim on the layer was lost", str(self.layer.path)) from error
        finally:
            claim.release()

    def _make(self, staging: Staging, cancel: CancellationToken) -> Made:
        run, blob = self.run, self.layer.layer.blob
        events: list[Event] = []
        reading = CancellationToken(cancel)
        options = WriterOptions(
            sync=run.sync,
            reproducible=run.options.reproducible,
            utility_vm=run.options.utility_vm,
            scratch_disks=run.options.scratch_disks,
            lock_timeout=0,
            cancel=cancel,
        )
        with opened(self.source, cancel, run.limits) as (images, named):
            if images.blob_size(blob) is None:  # a source may know its blobs only when its documents were read
                select(images, run.platform, named, cancel.raise_if_cancelled)
            stream = layer_stream(images, self.layer.layer, run.limits, reading)
            with PieceReader([stream], reading, jobs=1) as reader:
                task = LayerTask(self.layer.path.name, 1, 1, self.layer.digest, blob.size, events.append)
                planned = replace(self.layer, path=staging.layer)
                made = write_planned(planned, staging.parents, reader.pieces(), task, run.limits, options)
        staging.publish(sync=run.sync, cancel=cancel)
        entries = sum(event.entries for event in events if isinstance(event, LayerCommitting))
        warnings = tuple(event.text for event in events if isinstance(event, LayerWarning))
        return Made(replace(made, path=self.layer.path), entries, warnings)


Job = ResolveJob | LayerJob


# What an executor is given. What is raised here beside what is returned is the executor's own, or a signal's. There are
# two functions because dask estimates how long a call takes by the function's name.


def look_up(jobs: Sequence[ResolveJob]) -> list[Outcome]:
    """Look images up, one after the other, for a short time; those that are left have no outcome."""
    outcomes: list[Outcome] = []
    begun = time.monotonic()
    for job in jobs:
        outcomes.append(_outcome(job))
        if time.monotonic() - begun > LOOKING_UP:
            break
    return outcomes


def import_one(job: LayerJob) -> list[Outcome]:
    """Import a layer."""
    return [_outcome(job)]


def _outcome(job: Job) -> Outcome:
    cancel = CancellationToken()
    with deferred(cancel):
        try:
            if not job.run.wanted():
                raise OperationCancelledError("cancelled")
            return job.work(cancel)
        except ParentGoneError:
            return ParentGone()
        except Exception as error:
            return Failed(_portable(error), _is_transient(error))


@contextlib.contextmanager
def opened(source: Source, cancel: CancellationToken, limits: Limits) -> Iterator[OpenedSource]:
    """The source, opened if it is not open yet, and which of its images is meant."""
    with contextlib.ExitStack() as stack:
        if not isinstance(source, (str, os.PathLike)) and callable(source):
            source = stack.enter_context(source(cancel))
        yield stack.enter_context(opened_source(source, None, cancel, limits))


def _found(store: LayerStore, layer: PlannedLayer) -> ImportedLayer | None:
    """The layer in the store. FileExistsError if what is in its place is not the same."""
    path = store.find(layer.path.name)
    if path is None:
        return None
    try:
        with (path / RECORD).open("rb") as file:
            record = json.loads(file.read(RECORD_LIMIT))
        if {**layer.identity, "options": layer.options} == {
            "options": record.get("options", {}),
            **{name: record.get(name) for name in layer.identity},
        }:
            return layer.imported(int(record["bytes"]), reused=True)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        if store.find(layer.path.name) is None:
            return None  # it has just been removed
    raise FileExistsError(
        errno.EEXIST,
        f"a layer is there, but its {RECORD} does not say that it is the same; destroy it first",
        str(path),
    )


def _check_order(layers: list[PlannedLayer], found: tuple[ImportedLayer | None, ...]) -> None:
    for below, layer, there in zip(found, layers[1:], found[1:], strict=False):
        if below is None and there is not None:
            reason = "a layer below it is missing, so it cannot be complete; destroy it first"
            raise FileExistsError(errno.EEXIST, reason, str(layer.path))


def _is_transient(error: Exception) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT


def _portable(error: Exception) -> Exception:
    """The error as another process can have it."""
    if not _survives_pickle(error):
        error.__cause__ = error.__context__ = None  # tblib, which dask uses, pickles them, too
    if not _survives_pickle(error):
        text = f"{type(error).__name__}: {error}"
        return OSError(errno.EIO, text) if isinstance(error, OSError) else ValueError(text)
    return error


def _survives_pickle(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True
