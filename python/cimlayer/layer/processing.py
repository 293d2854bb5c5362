"""What closing a layer does to its standard files: hives, the utility VM, scratch disks (hcsshim, process.go).

Each step changes files of the layer directory and says what becomes of it in the image. None waits for the disk: the
writer syncs the whole directory before it commits, if it syncs at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cimfs_ext.imagepath import CIM_DIRECTORY
from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive
from cimlayer.errors import FormatError
from cimlayer.formats.fileinfo import FILE_ATTRIBUTE_DIRECTORY, FileBasicInfo
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.hivefiles import open_in_directory, open_in_image
from cimlayer.layer.paths import get_cim_path_from_layer, is_cim_layer
from cimlayer.layer.pending import PendingDirectory, PendingFile, PendingLink
from cimlayer.layer.standard import (
    HIVES,
    LAYOUT,
    SCRATCH,
    SCRATCH_BASE,
    TEMPLATE,
    TEMPLATE_BASE,
    UTILITY_VM,
    UTILITY_VM_BCD,
    UTILITY_VM_BUILD,
    UTILITY_VM_FILES,
    UTILITY_VM_SOFTWARE,
    UTILITY_VM_SYSTEM,
    HiveNames,
    StandardFiles,
)

_GIB = 1 << 30
SCRATCH_SIZE = 20 * _GIB
UTILITY_VM_SCRATCH_SIZE = 10 * _GIB

LAYOUT_CONTENT = b"vhd-with-hives\n"

UtilityVm = Literal["auto", "process", "keep"]
"""What becomes of a layer's utility VM: ``process`` prepares it for booting from the CIM, and fails where a file that
it needs is missing; ``auto`` prepares one that is complete and newer than build 20348; ``keep`` changes nothing."""

UtilityVmResult = Literal["processed", "kept"]


@dataclass(slots=True, frozen=True)
class LayerContext:
    """The layer that is being closed."""

    name: str
    standard: StandardFiles
    parents: Sequence[Path]  # from the immediate one to the base
    time: int  # FILETIME of what is made here
    seed: bytes | None  # for the disks; None: random
    warnings: list[str] = field(default_factory=list)  # for the events of the import

    @property
    def directory(self) -> LayerDirectory:
        """Where the layer's files outside the image lie."""
        return self.standard.directory

    def seed_for(self, disk: str) -> bytes | None:
        """A seed of its own for every disk."""
        return None if self.seed is None else self.seed + disk.encode()

    def label(self, path: str) -> str:
        """How errors name a file of this layer."""
        return f"layer {self.name}: {path}"

    def warn(self, text: str) -> None:
        """Note what the layer's importer should hear of."""
        self.warnings.append(text)

    def warn_if_dirty(self, hive: Hive) -> None:
        """``Hive.open`` has warned; programs get an event."""
        if hive.dirty:
            self.warn(f"{hive.name}: a dirty hive is read as it is")


def process_utility_vm(layer: LayerContext, mode: UtilityVm) -> UtilityVmResult:
    """Prepare the utility VM's boot store, hive and disks for booting from the image, or keep it as it came."""
    from cimlayer.layer import utilityvm  # noqa: PLC0415  few layers bring a utility VM

    complete = all(layer.standard.has(path) for path in UTILITY_VM_FILES)
    if mode == "keep" or (mode == "auto" and not complete):
        return "kept"
    _require(layer, "a utility VM", UTILITY_VM_SOFTWARE)
    try:
        build = utilityvm.build_number(_open_hive(layer, UTILITY_VM_SOFTWARE))
    except FormatError as error:
        if mode == "process":
            raise
        layer.warn(f"the utility VM is kept as it is: {error}")
        return "kept"
    layer.directory.write(UTILITY_VM_BUILD, str(build).encode("ascii"))
    if build <= utilityvm.LAST_BUILD_LEFT_ALONE:
        return "kept"
    _require(layer, "a utility VM that boots from the image", UTILITY_VM_BCD, UTILITY_VM_SYSTEM)
    _prepare_utility_vm(layer)
    return "processed"


def _prepare_utility_vm(layer: LayerContext) -> None:
    from cimlayer.formats.bcd import BcdStore, patch_for_cim  # noqa: PLC0415
    from cimlayer.formats.disks import create_differencing_disk, create_formatted_disk  # noqa: PLC0415
    from cimlayer.layer import utilityvm  # noqa: PLC0415

    files = layer.directory
    store = BcdStore(_open_hive(layer, UTILITY_VM_BCD))
    system = _open_hive(layer, UTILITY_VM_SYSTEM)
    base = files.path_for(TEMPLATE_BASE)
    disk = create_formatted_disk(base, UTILITY_VM_SCRATCH_SIZE, seed=layer.seed_for("template base"), sync=False)
    patch_for_cim(store, rf"{CIM_DIRECTORY}\{layer.name}.cim", disk)
    files.write(UTILITY_VM_BCD, store.to_bytes())
    utilityvm.patch_system_hive(system)
    files.write(UTILITY_VM_SYSTEM, system.to_bytes())
    template = files.path_for(TEMPLATE)
    create_differencing_disk(template, base, seed=layer.seed_for("template"), sync=False)
    for disk_path in (base, template):  # they name each other by relative path
        files.move(disk_path.name, rf"{UTILITY_VM}\{disk_path.name}")


def _require(layer: LayerContext, what: str, *paths: str) -> None:
    missing = [path for path in paths if not layer.standard.has(path)]
    if missing:
        raise FormatError(f"{what} without {', '.join(missing)}", f"layer {layer.name}")


def _open_hive(layer: LayerContext, path: str) -> Hive:
    """A hive that the layer brought."""
    hive = open_in_directory(layer.directory, path, layer.label(path))
    layer.warn_if_dirty(hive)
    return hive


def create_scratch_disks(layer: LayerContext) -> None:
    """The formatted disk and the differencing disk of a base layer."""
    from cimlayer.formats.disks import create_scratch_disk  # noqa: PLC0415

    base = layer.directory.path_for(SCRATCH_BASE)
    blank = layer.directory.path_for(SCRATCH)
    create_scratch_disk(base, blank, SCRATCH_SIZE, seed=layer.seed_for("blank"), sync=False)


def process_base_layer(layer: LayerContext) -> None:
    """Give the five hives their names under ``Hives``, and write ``layout``. The hives are linked, never opened."""
    files = layer.directory
    _require(layer, "a base layer", *(hive.path for hive in HIVES))
    files.make_directory("Hives")
    pending = layer.standard.pending
    pending.append(PendingDirectory("Hives", FileBasicInfo.at(layer.time, FILE_ATTRIBUTE_DIRECTORY)))
    for hive in HIVES:
        files.link(hive.path, hive.base_path)
        pending.append(PendingLink(hive.base_path, hive.path))
    files.write(LAYOUT, LAYOUT_CONTENT)
    pending.append(PendingFile(LAYOUT, files, FileBasicInfo.at(layer.time)))


def process_child_layer(layer: LayerContext) -> None:
    """Merge every delta hive that the layer brought onto its nearest ancestor's hive."""
    for hive in HIVES:
        if layer.standard.has(hive.delta_path):
            _merge_hive(layer, hive)


def _merge_hive(layer: LayerContext, hive: HiveNames) -> None:
    """A call of its own, so that one hive is gone before the next is read: SOFTWARE takes three times its size."""
    merged = _open_base_hive(layer, hive)
    merged.merge(_open_hive(layer, hive.delta_path))
    layer.directory.write(hive.base_path, merged.to_bytes())
    layer.standard.pending.append(PendingFile(hive.base_path, layer.directory, FileBasicInfo.at(layer.time)))


def _open_base_hive(layer: LayerContext, hive: HiveNames) -> Hive:
    """The nearest ancestor's full hive.

    A parent whose layer had no delta has none in its directory (layers that were built on Linux), so the whole chain
    is asked; an image holds what its ancestors put into theirs.
    """
    name = f"parent of layer {layer.name}: {hive.base_path}"
    for parent in layer.parents:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = open_in_directory(LayerDirectory(parent), hive.base_path, name, may_be_empty=True)
            layer.warn_if_dirty(found)
            return found
    missing = FormatError(
        f"no ancestor has {hive.base_path}, onto which {hive.delta_path} could be merged", f"layer {layer.name}"
    )
    if not is_cim_layer(layer.parents[0]):  # a block image cannot be read here
        raise missing
    with ImageReader(get_cim_path_from_layer(layer.parents[0])) as image:
        if not image.exists(hive.base_path):
            raise missing
        found = open_in_image(image, hive.base_path, name)
        layer.warn_if_dirty(found)
        return found
