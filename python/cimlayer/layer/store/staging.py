"""Making a layer beside the store, and moving it in as a whole.

The layer is written in the directory of a claim, where hard links stand for its parents' files. When it is complete,
hard links and one rename bring its files into the store, the CIM last: whoever sees the CIM sees all of the layer.
Every step starts from a path in the claim, so it fails once that has been taken away.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from cimfs_ext.imagepath import CIM_DIRECTORY
from cimfs_ext.regionsets import read_region_sets
from cimlayer.events import CancellationToken
from cimlayer.host.opendirectory import sync_directory
from cimlayer.image.locking import patiently, try_hold
from cimlayer.layer.marks import Mark, MarkKind
from cimlayer.layer.store.claims import Claim
from cimlayer.layer.store.layout import REMOVING, StoreLayout

_LONGEST_WAIT = 60.0  # seconds for an import into the store's own directories to end
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.EACCES)  # by a directory with something in it; the last on Windows


class ParentGoneError(FileNotFoundError):
    """A layer's parent is not in the store any more."""


class Staging:
    """A layer that is being made for a store, in a claim."""

    def __init__(self, store: StoreLayout, key: str, parent: str | None, claim: Claim) -> None:
        """Link the parent's files; ParentGoneError if it is not there."""
        self._store, self._key, self._parent = store, key, parent
        self._work = claim.path
        self._images = self._work / CIM_DIRECTORY
        self._images.mkdir()
        self.layer = self._work / key
        self.parents = [] if parent is None else [self._work / parent]
        if parent is not None:
            staged = self._images / f"{parent}.cim"
            try:
                os.link(store.image(parent), staged)  # from now on, whoever would remove the parent sees this
                for one in read_region_sets(staged):
                    for name in one.file_names():
                        os.link(store.images / name, self._images / name)
            except FileNotFoundError as error:
                if staged.exists() and store.image(parent).exists():
                    raise
                raise ParentGoneError(errno.ENOENT, "the parent layer was removed", str(store.layer(parent))) from error

    def publish(self, *, sync: bool, cancel: CancellationToken) -> None:
        """Move the finished layer into the store: all of it, or nothing. FileExistsError if one is there already."""
        image = self._store.image(self._key)
        staged = self._images / image.name
        own = read_region_sets(staged)[-1].file_names()
        # Locks for what else may be at work on this machine: an import into the store's directories, gc.
        mark = patiently(lambda: Mark(image, MarkKind.WRITING), _LONGEST_WAIT, cancel)
        with contextlib.ExitStack() as stack:
            stack.callback(mark.clear)
            stack.enter_context(try_hold(self._images / own[0]))
            if image.exists():
                raise FileExistsError(errno.EEXIST, "the layer is there already", str(self._store.layer(self._key)))
            with _undone() as undo:
                for name in own:
                    undo.callback(self._remove, self._store.images / name)
                    _link(self._images / name, self._store.images / name)
                undo.callback(self._take_back)
                self._move_in()
                if sync:
                    sync_directory(self._store.images)
                    sync_directory(self._store.root)
                os.link(staged, image)
                undo.callback(self._remove, image)
                if self._parent is not None and not self._store.image(self._parent).exists():
                    raise ParentGoneError(
                        errno.ENOENT, "the parent layer was removed", str(self._store.layer(self._parent))
                    )
                if sync:
                    sync_directory(self._store.images)

    def _move_in(self) -> None:
        """Give the layer directory its place; one without a CIM is what a killed process has left."""
        place = self._store.layer(self._key)
        for _ in range(2):
            try:
                self.layer.rename(place)
                return
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                place.rename(self._work / "left")
        self.layer.rename(place)

    def _remove(self, path: Path) -> None:
        """Not if the claim was lost: the file may be that of its next holder."""
        if self._work.exists():
            path.unlink(missing_ok=True)

    def _take_back(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not self.layer.exists():
                self._store.layer(self._key).rename(self.layer)


def settle(store: StoreLayout, work: Path) -> None:
    """What somebody who is gone had begun in a claim: a layer that was to be removed, perhaps, is back."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(work / REMOVING):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(work / REMOVING / name, store.images / name)


def _link(source: Path, target: Path) -> None:
    """One more name for a file; of a reproducible layer, an earlier attempt may have left the same file."""
    try:
        os.link(source, target)
    except FileExistsError:
        spare = source.with_name(f"{source.name}.again")
        os.link(source, spare)
        spare.replace(target)


@contextlib.contextmanager
def _undone() -> Iterator[contextlib.ExitStack]:
    """Callbacks for a block that fails."""
    with contextlib.ExitStack() as stack:
        yield stack
        stack.pop_all()
