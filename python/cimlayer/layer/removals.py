"""Removals from a layer: they hide what its parents have, and never what the layer itself has added."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cimfs_ext.builder import LayerBuilder
from cimfs_ext.names import upcase_key
from cimfs_ext.reader import ImageReader
from cimlayer.errors import PathNotFoundError
from cimlayer.events import CancellationToken
from cimlayer.formats.fileinfo import FILE_ATTRIBUTE_DIRECTORY, NO_ATTACHMENTS, FileBasicInfo


class Removals:
    """Applies the removals of a layer that is forked off its parent's image; without a parent there are none."""

    __slots__ = ("_builder", "_cancel", "_hidden", "_parent", "_reader", "_time")

    def __init__(self, builder: LayerBuilder, parent: Path | None, time: int, cancel: CancellationToken) -> None:
        """``parent`` is the immediate parent's image, ``time`` the FILETIME of directories that are made anew."""
        self._builder = builder
        self._parent = parent
        self._time = time
        self._cancel = cancel
        self._reader: ImageReader | None = None
        self._hidden: set[bytes] = set()  # directories that were gone through: the parents' are in them no more

    def close(self) -> None:
        """Let go of the parent's image."""
        if self._reader is not None:
            self._reader.close()

    def remove(self, path: str) -> None:
        """Hide what the parents have at a path; a path that they do not have is no error."""
        if self._parent is None:
            return
        if not self._builder.was_added(path):
            self._delete(path)
        elif ":" not in path:  # a stream that was added has replaced the parents'
            self._renew(path)
            self._hide_below(path)

    def remove_contents(self, directory: str) -> None:
        """Hide all that the parents have in a directory."""
        if self._parent is not None:
            self._hide_below(directory)

    def _renew(self, path: str) -> None:
        """A directory of the parents is hidden in which this layer has something: make it the layer's own."""
        try:
            entry = self._parents_image.stat(path)
        except PathNotFoundError:
            return
        if not entry.is_directory:
            return  # it was replaced, or will be
        if not self._builder.was_described(path):
            self._builder.create(path, FileBasicInfo.at(self._time, FILE_ATTRIBUTE_DIRECTORY), 0, NO_ATTACHMENTS)
            self._builder.image.close_stream()
        for stream in self._parents_image.streams(entry):
            name = f"{path}:{stream.name}"
            if not self._builder.was_added(name) and not self._builder.was_added(f"{name}:$DATA"):
                self._delete(name)

    def _hide_below(self, directory: str) -> None:
        pending = [directory]
        while pending:
            path = pending.pop()
            key = upcase_key(path)
            if key in self._hidden:
                continue
            self._hidden.add(key)
            for name in self._names_in_parent(path):
                self._cancel.raise_if_cancelled()
                child = f"{path}\\{name}" if path else name
                if self._builder.was_added(child):
                    self._renew(child)
                    pending.append(child)
                else:
                    self._delete(child)

    @property
    def _parents_image(self) -> ImageReader:
        if self._reader is None:
            assert self._parent is not None
            self._reader = ImageReader(self._parent)
        return self._reader

    def _names_in_parent(self, directory: str) -> list[str]:
        try:
            return [entry.name for entry in self._parents_image.listdir(directory)]
        except (PathNotFoundError, NotADirectoryError):
            return []

    def _delete(self, path: str) -> None:
        with contextlib.suppress(PathNotFoundError):
            self._builder.image.delete_path(path)
