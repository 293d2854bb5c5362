"""Exporting a CIM layer as an OCI layer tar: the counterpart of :mod:`cimlayer.oci.import_layer`."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from cimfs_ext.entries import ImageEntry
from cimfs_ext.names import upcase_key
from cimfs_ext.reader import ImageReader
from cimlayer.errors import FormatError, PathNotFoundError
from cimlayer.events import CancellationToken, ProgressCallback
from cimlayer.host.interrupts import deferred
from cimlayer.image.compare import walk_differences
from cimlayer.image.entrynames import check_name
from cimlayer.image.export import opened_output
from cimlayer.image.inspect import image_chain
from cimlayer.image.kinds import value_kinds
from cimlayer.image.meter import Meter
from cimlayer.image.tarentries import TarWriter, counted_entries
from cimlayer.layer.paths import get_cim_path_from_layer
from cimlayer.layer.standard import HIVES, LAYOUT, STANDARD_FILES, is_standard_file
from cimlayer.limits import DEFAULT_LIMITS, Limits, Usage

_WHITEOUT = ".wh."
_Event = tuple[str, "ImageEntry | None"]  # None for a whiteout


def export_layer(
    layer_path: str | os.PathLike[str],
    parent_layer_paths: Sequence[str | os.PathLike[str]] | None,
    output: str | os.PathLike[str] | BinaryIO,
    *,
    limits: Limits = DEFAULT_LIMITS,
    progress: ProgressCallback | None = None,
    cancel: CancellationToken | None = None,
) -> int:
    """Write a layer as an uncompressed OCI layer tar, and return the sum of the sizes of the files in it, in bytes.

    ``parent_layer_paths`` are the layer's parents, from the immediate parent to the base: the tar contains what the
    layer changes relative to the first of them, with removals as whiteouts. Without any, they are the layers beside
    this one whose images it is forked from; FileNotFoundError if one of them is missing. ``output`` is a path, which
    must not exist yet, or a binary file. Entries have the PAX records of go-winio's backuptar, in the order of the
    tree; the same layer gives the same bytes. Importing the tar on the same parents gives the same tree.
    ``progress`` is called with :class:`~cimlayer.FilesProgress`.

    Files that an import generates are left out: a base layer's ``layout`` and full hives in ``Hives``, and the merged
    hive of every delta of the layer (hcsshim, process.go); the delta itself is included. The boot store and the system
    hive of a utility VM are exported as modified by the import.

    ValueError if the parent is not the one that the layer was forked from. FormatError names a file that a layer tar
    cannot represent: a reparse point that is neither link nor mount point, an extended attribute with a flag, a name
    that is not Unicode or that, for removed files too, begins with ``.wh.``. CorruptImageError for a name that would
    change the meaning of a path. LimitError for an entry that exceeds ``limits`` (ratio does not apply), before any of
    it is written; what the layer has from its parents counts only where it is written. OperationCancelledError once
    ``cancel`` is cancelled. Whatever fails or interrupts, an output given as a path is removed.
    """
    cancel = CancellationToken(cancel)
    with ExitStack() as stack:
        if isinstance(output, (str, os.PathLike)):  # a stream may wait for its reader, and leaves nothing
            stack.enter_context(deferred(cancel))
        image = stack.enter_context(ImageReader(get_cim_path_from_layer(layer_path)))
        parent = None
        parents = parent_layer_paths or parent_layers(layer_path)
        if parents:
            parent = stack.enter_context(ImageReader(get_cim_path_from_layer(parents[0])))
        _check_parent(image, parent)
        file = stack.enter_context(opened_output(output))
        usage = Usage(limits, image.name)
        tar = TarWriter(image, file, usage, Meter(image.name, progress, cancel))
        return _LayerExport(image, parent, tar, usage, cancel).write()


def parent_layers(layer_path: str | os.PathLike[str]) -> list[Path]:
    """The layers below one, the immediate parent first, found by region sets; FileNotFoundError if one is missing.

    ImageNotFoundError if it has no image.
    """
    found = []
    for link in image_chain(get_cim_path_from_layer(layer_path))[1:]:
        if link.image is None:
            reason = f"the parent with region set {link.set_id} was not found"
            raise FileNotFoundError(errno.ENOENT, reason, os.fspath(layer_path))
        found.append(Path(link.image.parent.parent, link.image.stem))
    return found


def _check_parent(image: ImageReader, parent: ImageReader | None) -> None:
    if parent is not None and parent.region_sets != image.region_sets[:-1]:
        raise ValueError(f"{parent.name} is not the image that {image.name} is forked from")


class _LayerExport:
    """One export. A hard link needs a name of its file that is there when the tar is read up to the link."""

    def __init__(
        self, image: ImageReader, parent: ImageReader | None, tar: TarWriter, usage: Usage, cancel: CancellationToken
    ) -> None:
        self._cancel = cancel
        self._image = image
        self._parent = parent
        self._tar = tar
        self._usage = usage
        self._kinds = value_kinds()
        self._written: dict[int, str] = {}  # file ID -> the path of its first name in the tar

    def write(self) -> int:
        """The whole tar."""
        if self._parent is None:
            self._write_base()
        else:
            self._write_changes()
        self._tar.finish()
        return self._tar.file_bytes

    def _write_base(self) -> None:
        """What is ordinary is not seen here: a file of one name alone is written as it comes."""
        several_names = counted_entries(self._image, self._usage, self._cancel)
        made = ["Hives", LAYOUT, *(hive.base_path for hive in HIVES)]
        standard = self._ids_of(STANDARD_FILES)

        @functools.cache
        def standard_names() -> dict[int, str]:
            """Their standard paths, the last one of a file that has two, in the spelling of the image."""
            walk = self._image.walk()
            return {entry.file_id: path for path, entry in walk if entry.file_id in standard and is_standard_file(path)}

        def standard_name(file_id: int) -> str | None:
            return standard_names().get(file_id) if file_id in standard else None

        events = self._tar.others(several_names | self._ids_of(made))
        self._write_events(events, {upcase_key(path) for path in made}, {}, standard_name)

    def _ids_of(self, paths: Iterable[str]) -> set[int]:
        return {file_id for path in paths if (file_id := self._id_of(path)) is not None}

    def _id_of(self, path: str) -> int | None:
        try:
            return self._image.stat(path).file_id
        except PathNotFoundError:
            return None

    def _write_changes(self) -> None:
        events = []
        for path, entry in self._changes():
            self._cancel.raise_if_cancelled()
            if entry is not None:
                check_name(entry.name, path)
            self._usage.add_entry(path)
            events.append((path, entry))
        changed = {upcase_key(path) for path, entry in events if entry is not None}
        made = {upcase_key(hive.base_path) for hive in HIVES if upcase_key(hive.delta_path) in changed}
        files = {path: entry for path, entry in events if entry is not None and not entry.is_directory}
        standard = {entry.file_id: path for path, entry in files.items() if is_standard_file(path)}
        unchanged = self._unchanged_names({entry.file_id for entry in files.values()}, changed)
        self._write_events(events, made, unchanged, standard.get)

    def _write_events(
        self,
        events: Iterable[_Event],
        made: set[bytes],
        unchanged: dict[int, str],
        standard_name: Callable[[int], str | None],
    ) -> None:
        """``made`` are the keys of paths that the import made; the others give names of files for their IDs."""
        for path, entry in events:
            _check_no_whiteout(path)
            if entry is None:
                self._tar.whiteout(_whiteout(path))
            elif upcase_key(path) in made:
                continue
            elif entry.is_directory:
                self._write_entry(path, entry)
            else:
                self._write_file(path, entry, unchanged.get(entry.file_id), standard_name)

    # ---- what is to be written, in order ----

    def _changes(self) -> Iterator[_Event]:
        """Paths with their entries, or with None for a whiteout; those of a directory precede its entries."""
        assert self._parent is not None
        for path, entry, older in walk_differences(self._image, self._parent, self._can_amend):
            for one in (entry, older):
                if one is not None:
                    check_name(one.name, path)
            if older is not None and (entry is None or not self._can_stand_over(entry, older)):
                yield path, None
            if entry is None or entry is older:
                continue
            if older is not None and entry.is_directory and self._can_amend(path, entry, older):
                if self._has_new_metadata(entry, older):
                    yield path, entry
                continue
            yield path, entry
            if entry.is_directory:
                yield from self._image.walk(path)

    def _can_amend(self, path: str, entry: ImageEntry, older: ImageEntry) -> bool:
        """Whether an entry for a directory makes of the parent's directory what the layer has."""
        return entry is older or (older.is_directory and self._can_stand_over(entry, older))

    def _can_stand_over(self, entry: ImageEntry, older: ImageEntry) -> bool:
        """Whether an entry alone does: a directory over a directory keeps the old spelling and the old streams."""
        if entry is older or not (entry.is_directory and older.is_directory):
            return True
        assert self._parent is not None
        streams = {upcase_key(stream.name) for stream in self._image.streams(entry)}
        return entry.name == older.name and all(
            upcase_key(stream.name) in streams for stream in self._parent.streams(older)
        )

    def _has_new_metadata(self, entry: ImageEntry, older: ImageEntry) -> bool:
        assert self._parent is not None
        return self._metadata(self._image, entry) != self._metadata(self._parent, older)

    def _metadata(self, image: ImageReader, entry: ImageEntry) -> list[object]:
        """Streams are compared by where they are stored: one that was stored anew counts as new, and none is read."""
        streams = [(stream.name, image.location(entry, stream.name)) for stream in image.streams(entry)]
        return [*(kind.value(image, entry) for kind in self._kinds), streams]

    def _unchanged_names(self, file_ids: set[int], changed: set[bytes]) -> dict[int, str]:
        """Of files that get new names: a name that the parent has too, and that the layer leaves alone."""
        names: dict[int, str] = {}
        assert self._parent is not None
        if all(file_id > self._parent.last_file_id for file_id in file_ids):
            return names
        for path, entry in self._parent.walk():
            self._cancel.raise_if_cancelled()
            check_name(entry.name, path)
            if (
                entry.file_id in file_ids
                and not entry.is_directory
                and upcase_key(path) not in changed
                and self._id_of(path) == entry.file_id
            ):
                names.setdefault(entry.file_id, path)
        return names

    # ---- entries ----

    def _write_file(
        self, path: str, entry: ImageEntry, unchanged: str | None, standard_name: Callable[[int], str | None]
    ) -> None:
        """A file under its first name, a link under every other; a standard file can be no link to another name."""
        if self._written.get(entry.file_id) == path:
            return
        if is_standard_file(path):
            self._write_entry(path, entry)
            return
        if entry.file_id not in self._written and (standard := standard_name(entry.file_id)) is not None:
            self._write_entry(standard, entry)
        target = self._written.get(entry.file_id) or unchanged
        if target is None:
            self._write_entry(path, entry)
        else:
            self._tar.hard_link(path, target)

    def _write_entry(self, path: str, entry: ImageEntry) -> None:
        if not entry.is_directory:
            self._written[entry.file_id] = path
        self._tar.entry(path, entry)


def _check_no_whiteout(path: str) -> None:
    """A tar can express neither such a file nor its removal: the one would remove, the other may be opaque."""
    if path.rpartition("\\")[2].startswith(_WHITEOUT):
        raise FormatError("a name that means a whiteout in a layer tar", path)


def _whiteout(path: str) -> str:
    directory, separator, name = path.rpartition("\\")
    return f"{directory}{separator}{_WHITEOUT}{name}"
