"""Removing layers from a store, beside imports into it on any machine.

A layer that goes loses its CIM first, by a rename into the claim of whoever removes it. Whoever imports a child has
made a hard link to the parent's CIM before; so if neither a claim nor a CIM refers to the layer afterwards, nobody
will. Else its CIM comes back.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cimfs_ext.imagepath import CIM_DIRECTORY
from cimfs_ext.regionsets import read_region_sets
from cimlayer.errors import ImageBusyError, ImageError
from cimlayer.host.interrupts import deferred
from cimlayer.image.files import ImageDirectory, set_of
from cimlayer.image.garbage import orphans_held, remove_files
from cimlayer.layer.garbage import unfinished_layers
from cimlayer.layer.marks import Mark, MarkKind
from cimlayer.layer.store.claims import Claim, sweep, workplaces
from cimlayer.layer.store.layout import REMOVING, StoreLayout
from cimlayer.layer.store.staging import settle

if TYPE_CHECKING:
    from cimfs_ext.reports import RegionSet

_OLD = 86400.0  # seconds
_AT_ONCE = 64  # layers that are being removed: each is a claim, with an open file


@dataclass(slots=True)
class _Going:
    """A layer that may be removed: its claim, and its CIM in there."""

    key: str
    claim: Claim
    image: Path
    sets: list[RegionSet]


def remove_layers(store: StoreLayout, keys: Sequence[str]) -> list[str]:
    """Remove layers, children before their parents; those that somebody needs, or is at work on, stay.

    Returns what was removed. Pins are looked at again: somebody may have set one since the keys were chosen.
    """
    removed = []
    for at in range(0, len(keys), _AT_ONCE):
        with deferred():
            removed += _remove(store, keys[at : at + _AT_ONCE])
    return removed


def _remove(store: StoreLayout, keys: Sequence[str]) -> list[str]:
    with contextlib.ExitStack() as stack:
        going = [each for key in keys if (each := _hidden(store, key, stack)) is not None]
        staged = {image.name for work in workplaces(store.claims) for image in (work / CIM_DIRECTORY).glob("*.cim")}
        directory = ImageDirectory(store.images)  # after the claims: what is published is first here, then not there
        needed = {one.set_id for sets in directory.region_sets.values() for one in sets}
        removed = []
        for each in going:  # a child that stays keeps its parents
            own = each.sets[-1].set_id
            stays = own in needed or f"{each.key}.cim" in staged or (store.pins / each.key).exists()
            if stays or directory.unreadable:
                needed |= {one.set_id for one in each.sets}
                settle(store, each.claim.path)
            elif _finish(store, each):
                removed.append(each.key)
        return removed


def _hidden(store: StoreLayout, key: str, stack: contextlib.ExitStack) -> _Going | None:
    """Claim a layer and take its CIM away; None if somebody is at work on it, or it is gone."""
    claim = Claim.take(store.claims, key, lambda work: settle(store, work))
    if claim is None:
        return None
    stack.callback(claim.release)
    away = claim.path / REMOVING
    away.mkdir()
    image = away / f"{key}.cim"
    try:
        store.image(key).rename(image)
        return _Going(key, claim, image, read_region_sets(image))
    except (FileNotFoundError, ImageError):
        settle(store, claim.path)
        return None


def _finish(store: StoreLayout, layer: _Going) -> bool:
    """Nobody needs it: its files go. A mark says so, should this be killed meanwhile."""
    try:
        mark = Mark(store.image(layer.key), MarkKind.DESTROYING)
    except ImageBusyError:
        settle(store, layer.claim.path)
        return False
    try:
        layer.image.rename(layer.claim.path / "removed.cim")
        with contextlib.suppress(FileNotFoundError):
            store.layer(layer.key).rename(layer.claim.path / "left")
        remove_files(store.images, layer.sets[-1].file_names())
    except BaseException:
        mark.leave()
        raise
    mark.clear()
    return True


def remains(store: StoreLayout, *, delete: bool) -> list[tuple[str, int]]:
    """What killed processes have left, with sizes in bytes, and removes it if ``delete`` is set."""
    with deferred():
        found = [(f"claim {name}", 0) for name in sweep(store.claims, lambda work: settle(store, work), delete=delete)]
        found += [(f"run {name}", 0) for name in _old_runs(store, delete=delete)]
        if not store.images.is_dir():
            return found
        with orphans_held(store.images) as (_, orphans):
            claimed = _claimed_sets(store)
            again = {file.name for file in ImageDirectory(store.images).orphans()}
            gone = [each for each in orphans if each.name in again and set_of(each.name) not in claimed]
            if delete:
                remove_files(store.images, [each.name for each in gone])
            found += [(each.name, each.size or 0) for each in gone]
        layers = unfinished_layers(store.images, delete=delete, spared=lambda key: (store.claims / key).exists())
        return found + [(name, 0) for name in layers]


def _old_runs(store: StoreLayout, *, delete: bool) -> list[str]:
    """The runs that nobody has touched for a day: they are touched every minute."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for run in sorted(store.runs.iterdir()):
            if time.time() - run.stat().st_mtime > _OLD:
                found.append(run.name)
                if delete:
                    run.unlink(missing_ok=True)
    return found


def _claimed_sets(store: StoreLayout) -> set[str]:
    """The region sets of layers that are being made."""
    found = set()
    for work in workplaces(store.claims):
        with contextlib.suppress(FileNotFoundError):
            found |= {set_of(name) for name in os.listdir(work / CIM_DIRECTORY)}
    return found
