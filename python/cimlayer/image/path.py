"""Paths in an image as objects: the half of pathlib that reads."""

from __future__ import annotations

import errno
import fnmatch
import io
import os
import re
from collections.abc import Callable, Iterator
from functools import total_ordering
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import IO, Literal, TypeAlias, overload

from cimfs_ext.entries import ImageEntry
from cimfs_ext.names import upcase_key
from cimfs_ext.reader import ImageReader, path_text
from cimlayer.errors import CorruptImageError, PathNotFoundError
from cimlayer.formats.reparse import LINUX_SYMBOLIC_LINK, MOUNT_POINT, SYMBOLIC_LINK, parse_reparse_data

_LINKS = (SYMBOLIC_LINK, LINUX_SYMBOLIC_LINK, MOUNT_POINT)

# One component of a pattern; None is **, which stands for any number of names.
_Component: TypeAlias = "Callable[[str], object] | None"


@total_ordering
class CimPath:
    r"""A path in an image, with the methods of :class:`pathlib.Path` and :class:`zipfile.Path` that read.

    ``CimPath(image)`` is the root of an open :class:`~cimlayer.ImageReader`; ``CimPath(path)`` opens the image at that
    path, or that of a layer directory, and keeps it open as ``image``. The image of a layer holds what all layers
    below it have, so a path in it is one in the whole chain. An image of a chain that is not the topmost one shows
    the tree as it was there (:func:`~cimlayer.image_chain` lists them).

    Names compare without regard to case, in :meth:`glob` and :meth:`match` too; equal paths have equal hashes, and are
    of the same open image. ``str()`` of a path is what the methods of ImageReader take, with backslashes. ``..`` has
    no meaning. Nothing is followed: a symbolic link or mount point is neither a file nor a directory, whatever it leads
    to. Satisfies ``importlib.resources.abc.Traversable``.

    Raises what the methods of ImageReader raise, such as :class:`~cimlayer.PathNotFoundError`, and TypeError for paths
    that are neither str nor PurePath. Threads may share paths.
    """

    __module__ = "cimlayer"
    __slots__ = ("_entry", "_parts", "image")

    def __init__(self, image: ImageReader | str | os.PathLike[str], at: str | PurePath = "") -> None:
        """``at`` is a path below the root."""
        self.image = image if isinstance(image, ImageReader) else ImageReader(image)
        self._parts = _components(at)
        self._entry: ImageEntry | None = None  # once it was asked for: an image does not change

    def _at(self, parts: tuple[str, ...], entry: ImageEntry | None = None) -> CimPath:
        path = CimPath.__new__(CimPath)
        path.image, path._parts, path._entry = self.image, parts, entry
        return path

    # ---- the path alone ----

    @property
    def parts(self) -> tuple[str, ...]:
        """The names from below the root on; none for the root itself."""
        return self._parts

    @property
    def name(self) -> str:
        """The last name; empty for the root."""
        return self._parts[-1] if self._parts else ""

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The last extension of the name, with its dot; empty if there is none."""
        return PurePosixPath(self.name).suffix

    @property
    def suffixes(self) -> list[str]:
        """All extensions of the name."""
        return PurePosixPath(self.name).suffixes

    @property
    def parent(self) -> CimPath:
        """The directory that holds it; the root for the root."""
        return self._at(self._parts[:-1])

    @property
    def parents(self) -> tuple[CimPath, ...]:
        """The directories above, the nearest first, the root last."""
        return tuple(self._at(self._parts[:count]) for count in reversed(range(len(self._parts))))

    def joinpath(self, *others: str | PurePath) -> CimPath:
        """The path below this one; separators at the ends of ``others`` mean nothing."""
        return self._at(self._parts + tuple(name for other in others for name in _components(other)))

    def __truediv__(self, other: str | PurePath) -> CimPath:
        if not isinstance(other, (str, PurePath)):
            return NotImplemented
        return self.joinpath(other)

    def is_relative_to(self, other: CimPath | str | PurePath) -> bool:
        """Whether this is the other path or lies below it."""
        if isinstance(other, CimPath) and other.image is not self.image:
            return False
        above = _keys(self._parts_of(other))
        return _keys(self._parts)[: len(above)] == above

    def relative_to(self, other: CimPath | str | PurePath) -> PureWindowsPath:
        """The way from the other path down to this one; ValueError if there is none."""
        if not self.is_relative_to(other):
            raise ValueError(f"{self!r} is not below {other!r}")
        return PureWindowsPath(*self._parts[len(self._parts_of(other)) :])

    @staticmethod
    def _parts_of(other: CimPath | str | PurePath) -> tuple[str, ...]:
        return other._parts if isinstance(other, CimPath) else _components(other)

    def match(self, pattern: str | PurePath) -> bool:
        """Whether the last components match a pattern of ``*``, ``?`` and ``[]``, one for one."""
        components = _pattern(pattern)
        if None in components:
            raise ValueError("** is for glob: match compares as many components as the pattern has")
        names = _keys(self._parts)[-len(components) :]
        return len(names) == len(components) and all(
            component(name) for component, name in zip(components, names, strict=True) if component
        )

    def __str__(self) -> str:
        return "\\".join(self._parts)

    def as_posix(self) -> str:
        """The path with slashes."""
        return "/".join(self._parts)

    def __repr__(self) -> str:
        return f"CimPath({self.image.name!r}, {str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CimPath):
            return NotImplemented
        return self.image is other.image and _keys(self._parts) == _keys(other._parts)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, CimPath) or self.image is not other.image:
            return NotImplemented
        return _keys(self._parts) < _keys(other._parts)

    def __hash__(self) -> int:
        return hash((id(self.image), _keys(self._parts)))

    # ---- what is there ----

    def stat(self) -> ImageEntry:
        """The entry of the file or directory."""
        if self._entry is None:
            self._entry = self.image.stat(str(self))
        return self._entry

    def _found(self) -> ImageEntry | None:
        try:
            return self.stat()
        except PathNotFoundError:
            return None

    def exists(self) -> bool:
        """Whether anything is there."""
        return self._found() is not None

    def is_dir(self) -> bool:
        """Whether it is a directory, and no link."""
        entry = self._found()
        return entry is not None and entry.is_directory and entry.reparse_tag not in _LINKS

    def is_file(self) -> bool:
        """Whether it is a file, and no link."""
        entry = self._found()
        return entry is not None and not entry.is_directory and entry.reparse_tag not in _LINKS

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link, of Windows or of Linux."""
        entry = self._found()
        return entry is not None and entry.reparse_tag in (SYMBOLIC_LINK, LINUX_SYMBOLIC_LINK)

    def is_junction(self) -> bool:
        """Whether it is a mount point, which mklink calls a junction."""
        entry = self._found()
        return entry is not None and entry.reparse_tag == MOUNT_POINT

    def readlink(self) -> PureWindowsPath:
        """Where a symbolic link or mount point leads, as the image says it; OSError (EINVAL) for anything else."""
        data = self.image.reparse_data(str(self))
        target = parse_reparse_data(data).target if data else None
        if target is None:
            raise OSError(errno.EINVAL, "not a link", str(self))
        return PureWindowsPath(target)

    # ---- content ----

    @overload
    def open(
        self,
        mode: Literal["r", "rt"] = "r",
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        stream: str | None = None,
    ) -> io.TextIOWrapper: ...
    @overload
    def open(self, mode: Literal["rb"], *, stream: str | None = None) -> io.BufferedReader: ...
    def open(
        self,
        mode: str = "r",
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        stream: str | None = None,
    ) -> IO[str] | IO[bytes]:
        """The content, or an alternate stream, as a file of bytes, or of text (UTF-8 if ``encoding`` is not given)."""
        if mode not in ("r", "rt", "rb"):
            raise ValueError(f"a file of an image is opened in mode 'r' or 'rb', not {mode!r}")
        if mode == "rb" and (encoding, errors, newline) != (None, None, None):
            raise ValueError("encoding, errors and newline are for text")
        content = io.BufferedReader(self.image.open(str(self), stream=stream))
        return content if mode == "rb" else io.TextIOWrapper(content, encoding or "utf-8", errors, newline)

    def read_bytes(self) -> bytes:
        """All bytes of the content."""
        return self.image.read(str(self))

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """The content as text, UTF-8 unless ``encoding`` says otherwise."""
        with self.open("r", encoding, errors, newline) as file:
            return file.read()

    # ---- the tree ----

    def iterdir(self) -> Iterator[CimPath]:
        """What a directory holds, in the order of names."""
        return iter([self._at((*self._parts, entry.name), entry) for entry in self.image.listdir(str(self))])

    def walk(self) -> Iterator[tuple[CimPath, list[str], list[str]]]:
        """Yield each directory with the names of its directories, and of its files and links; the top first.

        A name that is removed from the list of directories, before the next step, is not walked.
        """
        waiting, seen = [self], set[int]()
        while waiting:
            top = waiting.pop()
            _note(top, seen)
            below, others = {}, []
            for child in top.iterdir():
                if child.is_dir():
                    below[child.name] = child
                else:
                    others.append(child.name)
            directories = list(below)
            yield top, directories, others
            waiting += [below[name] for name in reversed(directories)]

    def glob(self, pattern: str | PurePath) -> Iterator[CimPath]:
        r"""Yield what lies below this directory and matches, depth first; names are as the image has them.

        Components are separated by slashes or backslashes; ``**`` is any number of them, zero too, and at the end
        means files as well (as in pathlib from Python 3.13 on). A directory that is missing matches nothing.
        """
        return self._glob(_pattern(pattern), directories_only=str(pattern)[-1] in "/\\")

    def _glob(self, components: list[_Component], *, directories_only: bool) -> Iterator[CimPath]:
        seen: set[int] = set()
        listings: list[tuple[Iterator[CimPath], set[int]]] = []

        def enter(directory: CimPath, states: set[int]) -> None:
            if directory.is_dir() and states - {len(components)}:
                _note(directory, seen)
                listings.append((directory.iterdir(), states))

        enter(self, _closure({0}, components))
        while listings:
            listing, states = listings[-1]
            child = next(listing, None)
            if child is None:
                listings.pop()
                continue
            after = _advance(states, components, _key(child.name))
            if len(components) in after and (child.is_dir() or not directories_only):
                yield child
            enter(child, after)

    def rglob(self, pattern: str | PurePath) -> Iterator[CimPath]:
        """As :meth:`glob` with ``**/`` before the pattern."""
        _pattern(pattern)  # before it becomes part of another one
        return self.glob(f"**/{pattern}")


def _components(path: str | PurePath) -> tuple[str, ...]:
    return tuple(name for name in path_text(path).split("\\") if name not in ("", "."))


def _key(name: str) -> str:
    return upcase_key(name).decode("utf-16-le", "surrogatepass")


def _keys(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_key, parts))


def _note(directory: CimPath, seen: set[int]) -> None:
    """Remember a directory that is walked. (A forged image may have one in itself.)"""
    file_id = directory.stat().file_id
    if file_id in seen:
        raise CorruptImageError(errno.EBADMSG, "a directory has two names, or lies in itself", str(directory))
    seen.add(file_id)


# ---- patterns: the states are how many components were matched so far ----


def _pattern(pattern: str | PurePath) -> list[_Component]:
    components: list[_Component] = []
    for component in _components(pattern):
        if component == "**":
            components.append(None)
        else:
            components.append(re.compile(fnmatch.translate(_key(component))).match)
    if not components:
        raise ValueError(f"not a pattern: {str(pattern)!r}")
    return components


def _closure(states: set[int], components: list[_Component]) -> set[int]:
    """With those that are reached where ``**`` stands for no name."""
    reached = set(states)
    for state in range(len(components)):
        if state in reached and components[state] is None:
            reached.add(state + 1)
    return reached


def _advance(states: set[int], components: list[_Component], key: str) -> set[int]:
    after = set()
    for state in states:
        if state < len(components):
            component = components[state]
            if component is None:
                after.add(state)
            elif component(key):
                after.add(state + 1)
    return _closure(after, components)
