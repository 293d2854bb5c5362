"""A store of layers, for any number of processes and machines."""

from __future__ import annotations

import contextlib
import errno
import heapq
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cimfs_ext.reader import ImageReader
from cimlayer.blobs.digests import Digest
from cimlayer.errors import ImageError
from cimlayer.events import CancellationToken
from cimlayer.image.files import ImageDirectory
from cimlayer.layer.processing import UtilityVm
from cimlayer.layer.standard import RECORD
from cimlayer.layer.store.garbage import remains, remove_layers
from cimlayer.layer.store.keys import ByteOptions, is_key
from cimlayer.layer.store.layout import StoreLayout

if TYPE_CHECKING:
    from uuid import UUID

_USE_NOTED = 60.0  # seconds within which a layer's use is not noted again
_RECORD_LIMIT = 1 << 16  # bytes
_BLOCK = 512  # of st_blocks (stat(2))


@dataclass(slots=True, frozen=True)
class StoredLayer:
    """A layer of a store. ``parent`` is its parent's key, ``size`` what it takes on the disk beyond that, in bytes.

    ``used`` is when it was last used, in seconds since 1970.
    """

    key: str
    path: Path
    parent: str | None
    size: int
    used: float
    pinned: bool


@dataclass(slots=True, frozen=True)
class StoreProblem:
    """What is wrong with a layer of a store, or with a file of it."""

    name: str
    reason: str


@dataclass(slots=True, frozen=True)
class StoreGarbage:
    """What was removed from a store: layers, and what killed processes had left; ``bytes`` is the size of both."""

    layers: tuple[str, ...]
    remains: tuple[str, ...]
    bytes: int


class LayerStore:
    """A directory of layers, each under a key that says what its bytes are made from.

    The key is the layer's chain ID (its hex digits), with a digest of the options of the import that change bytes if
    they are not the defaults. Layers that :func:`~cimlayer.import_image` has made with the defaults are those of a
    store in the same directory. docs/fleet.md says what lies where.

    Any number of processes, on any number of machines that share the file system, may use one store at once. What
    they need of it: a rename and a hard link take place as a whole and are seen by all (NFS, SMB and all local file
    systems do; object stores do not). Locks between machines are not needed. All methods are safe in several threads.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Nothing is made, or looked at."""
        self.layout = StoreLayout.of(path)

    @property
    def path(self) -> Path:
        """The directory."""
        return self.layout.root

    @staticmethod
    def key(
        chain_id: str, *, reproducible: bool = False, utility_vm: UtilityVm = "auto", scratch_disks: bool = True
    ) -> str:
        """The key of a layer with a chain ID, made with these options; FormatError for what is not a digest.

        The environment's ``SOURCE_DATE_EPOCH`` is an option too.
        """
        return ByteOptions(reproducible, utility_vm, scratch_disks).key(Digest.parse(chain_id, "chain ID"))

    def find(self, key: str) -> Path | None:
        """The directory of a layer, None if it is not there. One stat; the use is noted, once a minute at most."""
        image = self.layout.image(key)
        try:
            status = image.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if abs(time.time() - status.st_mtime) > _USE_NOTED:
            with contextlib.suppress(OSError):  # such as a store that may only be read
                os.utime(image)
        return self.layout.layer(key)

    def layers(self) -> list[StoredLayer]:
        """All layers, the one used least recently first. Reads the head of every CIM."""
        directory = _images(self.layout)
        owners = _owners(directory)
        found = []
        for name, sets in directory.region_sets.items():
            key = name.removesuffix(".cim")
            if not is_key(key):
                continue
            with contextlib.suppress(FileNotFoundError):  # it is being removed
                used = (self.layout.images / name).stat().st_mtime
                files = [self.layout.images / file for file in (name, *sets[-1].file_names())]
                size = _disk_size([*files, *_below(self.layout.layer(key))])
                parent = owners.get(sets[-2].set_id) if len(sets) > 1 else None
                pinned = (self.layout.pins / key).exists()
                found.append(StoredLayer(key, self.layout.layer(key), parent, size, used, pinned))
        return sorted(found, key=lambda layer: (layer.used, layer.key))

    # ---- pins ----

    def pin(self, key: str) -> None:
        """Keep a layer, and so all below it, from being collected; FileNotFoundError if it is not there."""
        self.layout.pins.mkdir(parents=True, exist_ok=True)
        pin = self.layout.pins / _checked(key)
        pin.touch()
        if self.find(key) is None:  # looked at last: whoever removes it looks at the pin last
            pin.unlink(missing_ok=True)
            raise FileNotFoundError(errno.ENOENT, "no such layer", str(self.layout.layer(key)))

    def unpin(self, key: str) -> None:
        """Let a layer go; FileNotFoundError if it is not pinned."""
        (self.layout.pins / _checked(key)).unlink()

    # ---- what is not needed ----

    def collect_garbage(self, keep: int | None = None, *, dry_run: bool = False) -> StoreGarbage:
        """Remove what killed processes have left and, with ``keep``, layers until all take at most so many bytes.

        Layers used least recently go first. One stays as long as it is pinned, has children, or an import builds on
        it, so the result may be larger. Imports may run meanwhile, on any machine. CorruptImageError, and nothing is
        removed, if a CIM cannot be read: what it needs is not known.
        """
        _images(self.layout)  # FileNotFoundError if there is no store
        left = remains(self.layout, delete=not dry_run)
        freed = sum(size for _, size in left)
        going: list[str] = []
        if keep is not None:
            layers = self.layers()
            going = _least_recent(layers, sum(layer.size for layer in layers) - keep)
            if not dry_run:
                going = remove_layers(self.layout, going)
            sizes = {each.key: each.size for each in layers}
            freed += sum(sizes[key] for key in going)
        return StoreGarbage(tuple(going), tuple(name for name, _ in left), freed)

    # ---- is all as it should be ----

    def check(self, *, content: bool = False, cancel: CancellationToken | None = None) -> list[StoreProblem]:
        """What is wrong in the store: CIMs that cannot be read, or whose parents or region files are gone.

        Also directories and records that do not fit their CIMs, and pins without a layer. ``content`` verifies every
        byte of every CIM, too. What killed processes have left is no problem, and :meth:`collect_garbage` removes it.
        """
        return list(_problems(self.layout, content, cancel or CancellationToken()))


def _least_recent(layers: list[StoredLayer], surplus: int) -> list[str]:
    """The layers that go so that ``surplus`` bytes are free, children before their parents."""
    by_key = {layer.key: layer for layer in layers}
    held = Counter(layer.parent for layer in layers if layer.parent is not None)
    held.update(layer.key for layer in layers if layer.pinned)
    leaves = [(layer.used, layer.key) for layer in layers if not held[layer.key]]
    heapq.heapify(leaves)
    going = []
    while surplus > 0 and leaves:
        layer = by_key[heapq.heappop(leaves)[1]]
        going.append(layer.key)
        surplus -= layer.size
        if layer.parent in by_key:
            held[layer.parent] -= 1
            if not held[layer.parent]:
                heapq.heappush(leaves, (by_key[layer.parent].used, layer.parent))
    return going


def _problems(layout: StoreLayout, content: bool, cancel: CancellationToken) -> Iterator[StoreProblem]:
    directory = _images(layout)
    for name, error in directory.unreadable.items():
        yield StoreProblem(name, error.strerror or str(error))
    owners = _owners(directory)
    for name, sets in directory.region_sets.items():
        cancel.raise_if_cancelled()
        key = name.removesuffix(".cim")
        if missing := directory.missing(name):
            yield StoreProblem(name, f"{missing[0]} is missing")
            continue
        if any(one.set_id not in owners for one in sets):
            yield StoreProblem(name, "a parent layer is missing")
        if is_key(key):
            reason = _record_problem(layout.layer(key), key)
            if reason is not None:
                yield StoreProblem(key, reason)
        if content:
            yield from _damage(layout.images / name)
    for pin in sorted(layout.pins.iterdir()) if layout.pins.is_dir() else []:
        if not layout.image(pin.name).exists():
            yield StoreProblem(pin.name, "pinned, but not there")


def _damage(image: Path) -> Iterator[StoreProblem]:
    try:
        with ImageReader(image) as reader:
            for problem in reader.verify().problems:
                yield StoreProblem(image.name, str(problem))
    except ImageError as error:
        yield StoreProblem(image.name, str(error))


def _record_problem(layer: Path, key: str) -> str | None:
    try:
        with (layer / RECORD).open("rb") as file:
            record = json.loads(file.read(_RECORD_LIMIT))
        chain_id = record["chain_id"].partition(":")[2]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"no {RECORD} that can be read"
    return None if chain_id == key.partition("-")[0] else f"its {RECORD} is that of another layer"


def _images(layout: StoreLayout) -> ImageDirectory:
    if layout.root.is_dir():
        layout.images.mkdir(exist_ok=True)
    return ImageDirectory(layout.images)


def _owners(directory: ImageDirectory) -> dict[UUID, str]:
    return {sets[-1].set_id: name.removesuffix(".cim") for name, sets in directory.region_sets.items()}


def _below(directory: Path) -> Iterator[Path]:
    for above, _, names in os.walk(directory):
        yield from (Path(above, name) for name in names)


def _disk_size(files: list[Path]) -> int:
    """Bytes on the disk; a file with two names counts once."""
    sizes = {}
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            status = file.stat(follow_symlinks=False)
            blocks = getattr(status, "st_blocks", None)
            sizes[status.st_dev, status.st_ino] = status.st_size if blocks is None else blocks * _BLOCK
    return sum(sizes.values())


def _checked(key: str) -> str:
    if not is_key(key):
        raise ValueError(f"not the key of a layer: {key[:200]!r}")
    return key
