"""The whole: any bytes are imported as a layer, or refused without a trace; what was imported can be used."""

from __future__ import annotations

import gzip
import io
from functools import cache
from pathlib import Path

import cimlayer
from cimfs_ext.regf import Hive
from cimlayer.errors import FormatError, ImageError, KeyNotFoundError
from cimlayer.layer.standard import HIVES
from fuzz.python.scratch import PARENT, destroy, layers, leaving_nothing, names_below, same_trees, use, with_checksums
from fuzz.seeds import linux_layer, windows_layer
from support.image_layers import base_tar
from support.tars import TarBuilder
from support.utilityvms import add_utility_vm

BASE, HIVES_FIRST, UTILITY_VM_FIRST, GZIP, AS_IT_STANDS = 7, 8, 16, 32, 64


def seeds() -> dict[str, bytes]:
    """A byte of flags, then a tar."""
    uvm = TarBuilder()
    uvm.file("UtilityVM/Files/x", b"x")
    changes = TarBuilder()
    changes.whiteout("Files/a.txt")
    changes.opaque("Files/d")
    changes.file("Files/d/new", b"new")
    changes.hardlink("Files/link", "Files/b.txt")
    changes.file("Hives/SYSTEM_DELTA", Hive.empty(0).to_bytes())
    return {
        "child": b"\0" + windows_layer(Hive.empty(0).to_bytes()),
        "damaged-hive": b"\0" + windows_layer(),
        "changes": b"\0" + changes.finish(),
        "deltas": bytes([HIVES_FIRST]) + linux_layer(),
        "base": bytes([BASE | HIVES_FIRST]) + windows_layer(),
        "no-hives": bytes([BASE]) + windows_layer(),
        "utility-vm": bytes([BASE | HIVES_FIRST | UTILITY_VM_FIRST]) + uvm.finish(),
        "compressed": bytes([GZIP]) + linux_layer(),
        "damaged": bytes([AS_IT_STANDS]) + gzip.compress(linux_layer()),
    }


@cache
def _first(base: bool, hives: bool, utility_vm: bool) -> bytes:
    """Valid entries ahead of the input's, as a layer has them, so that the input need not hold hives."""
    tar = base_tar() if base and hives else TarBuilder()
    if hives and not base:
        for hive in HIVES[:2]:
            tar.file(hive.delta_path.replace("\\", "/"), Hive.empty(0).to_bytes())
    if utility_vm:
        add_utility_vm(tar)
    return tar.finish(end=b"")


def run(data: bytes) -> None:
    """Import the tar onto nothing or onto the parent; use and destroy what became of it."""
    if not data:
        return
    flags, source = data[0], data[1:]
    is_base = flags & BASE == BASE
    if not flags & AS_IT_STANDS:
        first = _first(is_base, bool(flags & HIVES_FIRST), bool(flags & UTILITY_VM_FIRST))
        source = first + with_checksums(source)
    if flags & GZIP:
        source = gzip.compress(source, 1)
    root = layers()
    parent = None if is_base else root / PARENT
    layer, again = root / "layer", root / "again"
    before = names_below(root)
    if not _is_imported(root, source, layer, parent):
        return
    tar = use(layer, parent, sound=True)
    if tar is not None:
        assert _is_imported(root, tar, again, parent), "what was exported cannot be imported"
        assert same_trees(layer, again), "what was exported is another tree"
        destroy(again)
    destroy(layer)
    assert names_below(root) == before


def _is_imported(root: Path, source: bytes, layer: Path, parent: Path | None) -> bool:
    def work() -> None:
        above = [] if parent is None else [parent]
        cimlayer.import_layer(io.BytesIO(source), layer, above, sync=False, reproducible=True, jobs=1)

    return leaving_nothing(root, work, FormatError, ImageError, KeyNotFoundError)
