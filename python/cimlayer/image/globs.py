"""Paths and patterns: which entries of an image a person means.

A pattern has ``*`` (any part of a name), ``?`` (one character), ``[a-z]`` or ``[!a-z]`` (one character of a set), and
``**`` as a whole component (any number of directories). One without a separator is about names at any depth, any other
about paths from the root on; one that ends with a separator matches only directories. Slashes and backslashes are
separators, and case is ignored as an image ignores it. Links are not followed.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.errors import PathNotFoundError

Found = tuple[str, ImageEntry]

_ANY_DEPTH = "**"
_WILDCARD = re.compile(r"[*?[]")


def select(image: ImageReader, paths: Iterable[str]) -> Iterator[Found]:
    """Yield ``(path, entry)`` for what each path or pattern names, in their order; paths have backslashes.

    What exists under exactly that name is meant by it, so ``notes[1].txt`` is a file if there is one. PathNotFoundError
    for a path that does not exist, and for a pattern that nothing matches.
    """
    for path in paths:
        if not is_pattern(path) or image.exists(path):
            yield _clean(path), image.stat(path)
            continue
        found: set[str] = set()
        only_directories = path.endswith(("/", "\\"))
        for inner, entry in _below(image, _components(path), "", image.stat("")):
            if inner not in found and (entry.is_directory or not only_directories):
                found.add(inner)
                yield inner, entry
        if not found:
            raise PathNotFoundError(errno.ENOENT, "not found", path, image_file=image.name)


def is_pattern(path: str) -> bool:
    """Whether a path has wildcards. (Of these, only ``[`` can be in a name of Windows.)"""
    return bool(_WILDCARD.search(path))


def name_matcher(pattern: str) -> Callable[[str], bool]:
    """A test for names, or for paths with backslashes, in which ``*`` stands for backslashes too."""
    import fnmatch  # noqa: PLC0415  few calls have patterns

    match = re.compile(fnmatch.translate(_upcased(pattern))).match
    return lambda name: match(_upcased(name)) is not None


def _upcased(name: str) -> str:
    from cimfs_ext.names import upcase_key  # noqa: PLC0415

    return upcase_key(name).decode("utf-16-le", "surrogatepass")


def _clean(path: str) -> str:
    return path.replace("/", "\\").strip("\\")


def _components(pattern: str) -> list[str]:
    anchored = re.search(r"[/\\].", pattern) is not None
    return [*([] if anchored else [_ANY_DEPTH]), *filter(None, _clean(pattern).split("\\"))]


def _below(image: ImageReader, components: list[str], path: str, entry: ImageEntry) -> Iterator[Found]:
    """What the components name below an entry; the recursion is as deep as the pattern is long."""
    if not components:
        yield path, entry
        return
    first, rest = components[0], components[1:]
    if not entry.is_directory:
        return
    if first == _ANY_DEPTH:
        if rest:
            yield from _below(image, rest, path, entry)
        for inner, below in image.walk(path):
            if not rest or below.is_directory:
                yield from _below(image, rest, inner, below)
        return
    above = f"{path}\\" if path else ""
    matches = name_matcher(first)
    for below in image.listdir(entry):
        if matches(below.name):
            yield from _below(image, rest, above + below.name, below)
