"""Comparing images. A fork and its parent are compared by their records, without reading their content."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import REGION_SHIFT, ImageReader
from cimlayer.errors import CorruptImageError
from cimlayer.events import CancellationToken
from cimlayer.image.entrynames import check_image
from cimlayer.image.kinds import ATTRIBUTES, STREAMS, value_kinds

Kind = Literal["added", "removed", "changed"]
Pair = tuple[str, ImageEntry | None, ImageEntry | None]

_PIECE = 1 << 20
_LONGEST_PATH = 32_767


@dataclass(slots=True, frozen=True)
class Change:
    """One path at which two images differ.

    ``aspects`` says in what a changed path does: ``name`` (its case), ``type``, ``content``, and kinds of metadata:
    ``attributes``, ``times``, ``security_descriptor``, ``extended_attributes``, ``reparse_data``, ``streams``.
    """

    kind: Kind
    path: str
    entry: ImageEntry | None
    older_entry: ImageEntry | None
    aspects: tuple[str, ...] = ()


def diff_images(
    older: ImageReader,
    newer: ImageReader,
    *,
    progress: Callable[[int], object] | None = None,
    cancel: CancellationToken | None = None,
) -> Iterator[Change]:
    """Yield what ``newer`` adds, removes and changes relative to ``older``, in the order of the tree.

    Everything below an added or removed directory is listed. Whether names are hard links to one file is not compared.
    Between a fork and its parent, content is read only where it was rewritten. ``progress`` is called with the number
    of bytes read so far. OperationCancelledError once ``cancel`` is cancelled.
    """
    check_image(older)
    check_image(newer)
    cancel = cancel or CancellationToken()
    aspects = _Aspects(older, newer, progress, cancel)
    root, older_root = newer.stat(""), older.stat("")
    if found := aspects.between(root, older_root):
        yield Change("changed", "", root, older_root, found)
    for path, entry, older_entry in walk_differences(newer, older):
        cancel.raise_if_cancelled()
        if entry is older_entry:
            continue
        if entry is None or older_entry is None:
            yield from _one_sided(newer, older, path, entry, older_entry)
            continue
        if found := aspects.between(entry, older_entry):
            yield Change("changed", path, entry, older_entry, found)
        if entry.is_directory != older_entry.is_directory:
            image, kind = (newer, "added") if entry.is_directory else (older, "removed")
            for inner, below in image.walk(path):
                yield _change_of(kind, inner, below)


def _one_sided(
    newer: ImageReader, older: ImageReader, path: str, entry: ImageEntry | None, older_entry: ImageEntry | None
) -> Iterator[Change]:
    image, kind = (newer, "added") if older_entry is None else (older, "removed")
    found = entry or older_entry
    assert found is not None
    yield _change_of(kind, path, found)
    if found.is_directory:
        for inner, below in image.walk(path):
            yield _change_of(kind, inner, below)


def _change_of(kind: str, path: str, entry: ImageEntry) -> Change:
    return Change("added", path, entry, None) if kind == "added" else Change("removed", path, None, entry)


def are_related(newer: ImageReader, older: ImageReader) -> bool:
    """Whether one image is forked from the other, so that equal file IDs mean the same file."""
    return newer.is_fork_of(older) or older.is_fork_of(newer)


def walk_differences(
    newer: ImageReader,
    older: ImageReader,
    descend: Callable[[str, ImageEntry, ImageEntry], bool] = lambda path, entry, older_entry: True,
) -> Iterator[Pair]:
    """Yield ``(path, entry, older_entry)`` in the order of the tree for what may differ.

    None stands for what one side does not have. Directories that both have come always, as one entry twice when their
    own records are equal, and their children follow if ``descend`` agrees; one-sided directories come alone. Files
    come if their records differ or, between images that are not forks of each other, always.
    """
    related = are_related(newer, older)
    pending = [iter(newer.compare_directories("", older, "", related=related))]
    names: list[str] = []  # whose join is the path of the directory: one path, however deep it lies
    path = ""
    seen: set[int] = set()
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            del names[-1:]  # none for the root
            path = "\\".join(names)
            continue
        entry, older_entry = found
        one = entry or older_entry
        assert one is not None
        inner = f"{path}\\{one.name}" if path else one.name
        if len(inner) > _LONGEST_PATH:
            raise CorruptImageError(errno.EBADMSG, "a path longer than 32,767 code units", path)
        yield inner, entry, older_entry
        if entry is None or older_entry is None or not (entry.is_directory and older_entry.is_directory):
            continue
        if entry.file_id in seen:
            raise CorruptImageError(errno.EBADMSG, "a directory has two names, or lies in itself", inner)
        seen.add(entry.file_id)
        if descend(inner, entry, older_entry):
            pending.append(iter(newer.compare_directories(entry, older, older_entry, related=related)))
            names.append(one.name)
            path = inner


class _Aspects:
    """Compares entries of two images field by field, and content by where it lies before reading it."""

    def __init__(
        self,
        older: ImageReader,
        newer: ImageReader,
        progress: Callable[[int], object] | None,
        cancel: CancellationToken,
    ) -> None:
        self._progress = progress
        self._cancel = cancel
        self._read = 0
        self._older = older
        self._newer = newer
        self._kinds = value_kinds()
        self._common_regions = 0
        for ours, theirs in zip(newer.region_sets, older.region_sets, strict=False):
            if ours != theirs:
                break
            self._common_regions += ours.count

    def between(self, entry: ImageEntry, older: ImageEntry) -> tuple[str, ...]:
        """The aspects in which two entries differ."""
        same_type = entry.is_directory == older.is_directory
        found = []
        if entry.name != older.name:
            found.append("name")
        if not same_type:
            found.append("type")
        elif not entry.is_directory and not self._same_content(entry, older, None):
            found.append("content")
        for kind in self._kinds:
            if kind.value(self._newer, entry) != kind.value(self._older, older):
                found.append(kind.name)
        if not same_type:
            found.remove(ATTRIBUTES.name)  # which have the type in them
        if not self._same_streams(entry, older):
            found.append(STREAMS.name)
        return tuple(found)

    def _same_streams(self, entry: ImageEntry, older: ImageEntry) -> bool:
        streams, older_streams = self._newer.streams(entry), self._older.streams(older)
        return set(streams) == set(older_streams) and all(self._same_content(entry, older, s.name) for s in streams)

    def _same_content(self, entry: ImageEntry, older: ImageEntry, stream: str | None) -> bool:
        offset, size = self._newer.location(entry, stream)
        older_offset, older_size = self._older.location(older, stream)
        if size != older_size:
            return False
        if offset == older_offset and offset >> REGION_SHIFT < self._common_regions:
            return True
        with self._newer.open(entry, stream=stream) as ours, self._older.open(older, stream=stream) as theirs:
            while piece := ours.read(_PIECE):
                self._cancel.raise_if_cancelled()
                if piece != theirs.read(_PIECE):
                    return False
                self._read += len(piece)
                if self._progress is not None:
                    self._progress(self._read)
        return True
