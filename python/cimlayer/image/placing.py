"""Where the entries of a folder or a plain tar go in an image, and which of them."""

from __future__ import annotations

from cimfs_ext.names import upcase_key
from cimlayer.errors import FormatError
from cimlayer.image.patterns import Patterns

_LONGEST_NAME = 255  # code units


class Placement:
    """Decides on entries, by their paths with backslashes, in the order in which they come.

    ``exclude`` leaves out what it chooses, with all that is below. Names that differ only in case, which are one to
    Windows, are a FormatError, or with ``case_rename`` all but the first get a number. Entries that an image cannot
    have are a FormatError, or with ``skip_special`` are left out. All lies in the directory ``below``.
    """

    def __init__(self, exclude: Patterns, *, case_rename: bool, skip_special: bool, below: str = "") -> None:
        self.renamed: dict[str, str] = {}  # the paths of entries, with slashes
        self.skipped: list[str] = []  # what, and why
        self.excluded = 0
        self._exclude = exclude
        self._case_rename = case_rename
        self._skip_special = skip_special
        self._names: dict[str, dict[bytes, str]] = {}  # of each directory of the image, as they were spelled
        self._numbered: dict[tuple[str, str], str] = {}  # of a directory, and a name that another one was taken for
        self._given: set[tuple[str, str]] = set()
        self._below = below
        self._directories: dict[str, str] = {"": below}
        self._last = ""

    def place(self, path: str, directory: bool, name: str, offset: int | None, unsuitable: str | None) -> str | None:
        """The path in the image; None for what is left out.

        ``name`` and ``offset`` are for errors; ``unsuitable`` says why nothing can be at such a path. After a file, its
        streams may come.
        """
        file, colon, stream = path.partition(":")
        if path and (self._exclude.cover(file, directory) or (colon and self._exclude.match(path, False))):
            self.excluded += 1
            return None
        if colon and file != self._last and unsuitable is None:
            unsuitable = "a colon in a name that is not a stream of the file right before it"
        if unsuitable is not None:
            self.leave_out(name, unsuitable, offset)
            return None
        self._last = file
        placed = self._placed(file, name, offset)
        if directory:
            self._directories[file] = placed
        if placed != _joined(self._below, file) and not colon:
            self.renamed[path.replace("\\", "/")] = placed.replace("\\", "/")
        return placed + colon + stream

    def place_of(self, path: str) -> str:
        """Where something went that was placed before."""
        head, _, leaf = path.rpartition("\\")
        parent = self._directories.get(head)
        if parent is None:
            return path
        return _joined(parent, self._numbered.get((parent, leaf), leaf))

    def leave_out(self, name: str, why: str, offset: int | None = None) -> None:
        """An entry that an image cannot have."""
        if not self._skip_special:
            raise FormatError(why, name, offset)
        self.skipped.append(f"{name}: {why}")

    def forget(self, directory: str) -> None:
        """All names of a directory have been placed."""
        self._names.pop(self._directories.get(directory, directory), None)

    def _placed(self, path: str, name: str, offset: int | None) -> str:
        head, _, leaf = path.rpartition("\\")
        parent = self._directories.get(head)
        if parent is None:
            for end in [at for at, unit in enumerate(head) if unit == "\\"]:  # from above, as deep as it may be
                if head[:end] not in self._directories:
                    self._directories[head[:end]] = self._placed(head[:end], name, offset)
            parent = self._directories[head] = self._placed(head, name, offset)
        names = self._names.setdefault(parent, {})
        known = names.setdefault(upcase_key(leaf), leaf)
        if known == leaf and (parent, leaf) not in self._given:
            return _joined(parent, leaf)
        if (number := self._numbered.get((parent, leaf))) is not None:
            return _joined(parent, number)
        if not self._case_rename:
            raise FormatError(f"{known!r} and {leaf!r} are one name for Windows", name, offset)
        number = _numbered(leaf, names)
        self._numbered[parent, leaf] = names[upcase_key(number)] = number
        self._given.add((parent, number))
        return _joined(parent, number)


def _joined(parent: str, name: str) -> str:
    return f"{parent}\\{name}" if parent else name


def _numbered(name: str, taken: dict[bytes, str]) -> str:
    """``name~2.txt``, or the next number that is free."""
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    number = 2
    while True:
        tail = f"~{number}{dot}{extension}"
        room = _LONGEST_NAME - len(tail.encode("utf-16-le", "surrogatepass")) // 2
        found = (
            stem.encode("utf-16-le", "surrogatepass")[: max(room, 0) * 2].decode("utf-16-le", "surrogatepass") + tail
        )
        if upcase_key(found) not in taken:
            return found
        number += 1
