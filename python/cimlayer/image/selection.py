"""Which entries of an image are meant: by paths, by patterns, but for what is excluded."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from itertools import takewhile

from cimfs_ext.entries import ImageEntry
from cimfs_ext.names import upcase_key
from cimfs_ext.reader import ImageReader
from cimlayer.errors import PathNotFoundError
from cimlayer.image.patterns import Patterns, has_wildcards

Found = tuple[str, ImageEntry]


class Spelling:
    """How an image spells its names, which are looked up without regard to case."""

    def __init__(self, image: ImageReader) -> None:
        self._image = image
        self._names: dict[str, dict[bytes, str]] = {}

    def path(self, path: str) -> str:
        """A path, with backslashes; what is not there stays as it is."""
        spelled = ""
        names = [name for name in path.replace("/", "\\").split("\\") if name]
        for name in names:
            found = self._names_of(spelled).get(upcase_key(name), name)
            spelled = f"{spelled}\\{found}" if spelled else found
        return spelled

    def _names_of(self, directory: str) -> dict[bytes, str]:
        if directory not in self._names:
            try:
                entries = self._image.listdir(directory)
            except (PathNotFoundError, NotADirectoryError):
                entries = []
            self._names[directory] = {upcase_key(entry.name): entry.name for entry in entries}
        return self._names[directory]


def select(image: ImageReader, paths: Iterable[str]) -> list[tuple[str, ImageEntry]]:
    """What paths and patterns are about, none of it below another one, in the order of paths.

    What is there under the very name is meant by it. PathNotFoundError for a path or pattern that nothing has.
    """
    spelling = Spelling(image)
    found = {spelling.path(path): entry for path, entry in each_named(image, paths)}
    return [(path, found[path]) for path in sorted(found) if not _lies_below(path, found)]


def each_named(image: ImageReader, paths: Iterable[str]) -> Iterator[Found]:
    """Yield what each path or pattern is about, in their order; a path as it was given, but with backslashes.

    What is there under the very name is meant by it. PathNotFoundError for a path or pattern that nothing has.
    """
    for path in paths:
        if image.exists(path) or not has_wildcards(path):
            yield path.replace("/", "\\").strip("\\"), image.stat(path)
            continue
        matching = list(_matching(image, path))
        if not matching:
            raise PathNotFoundError(errno.ENOENT, f"nothing in {image.name} matches", path)
        yield from matching


def _matching(image: ImageReader, pattern: str) -> Iterator[Found]:
    """Only what lies below the directories that a pattern names without wildcards is looked at."""
    above = takewhile(lambda name: not has_wildcards(name), re.split(r"[/\\]", pattern)[:-1])
    top = Spelling(image).path("\\".join(above))
    if image.exists(top) and image.stat(top).is_directory:
        patterns = Patterns([pattern])
        for path, entry in image.walk(top):
            if patterns.match(path, entry.is_directory):
                yield path, entry


def _lies_below(path: str, others: dict[str, ImageEntry]) -> bool:
    if path and "" in others:
        return True
    return any(unit == "\\" and path[:at] in others for at, unit in enumerate(path))
