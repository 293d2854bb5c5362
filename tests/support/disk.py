"""A directory after a crash: what a recorded series of file operations may have left on the disk.

The model is the strictest one: without a sync of the file any of its writes may be lost, page by page and in any order,
and without a sync of the directory any change of a name in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096

State = Mapping[str, bytes | None]  # content by path; None: a directory


@dataclass
class _File:
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (size, None) for a cut

    def sync(self) -> None:
        self.durable = self.content()
        self.pending = []

    def content(self, lost: random.Random | None = None) -> bytes:
        """With everything that is pending, or without what chance takes away."""
        if not self.pending:
            return self.durable
        content = bytearray(self.durable)
        for offset, data in self.pending:
            if data is None:
                if lost is None or lost.random() < 0.5:
                    del content[offset:]
                    content += bytes(offset - len(content))
                continue
            for at in range(0, len(data), PAGE):
                if lost is None or lost.random() < 0.5:
                    piece = data[at : at + PAGE]
                    content += bytes(max(0, offset + at - len(content)))
                    content[offset + at : offset + at + len(piece)] = piece
        return bytes(content)


_Names = dict[str, _File | None]


@dataclass
class _Change:
    """Names that appear in a directory and go, in one step."""

    directory: str
    made: _Names
    gone: tuple[str, ...] = ()

    def apply(self, names: _Names) -> None:
        names.update(self.made)
        for path in self.gone:
            names.pop(path, None)


class Disk:
    """A directory and all below it; ``apply`` takes the lines of a journal (tests/c/system_calls.c)."""

    def __init__(self, state: State) -> None:
        self._durable: _Names = {path: None if data is None else _File(data) for path, data in state.items()}
        self._names = dict(self._durable)
        self._pending: list[_Change] = []
        self._files: dict[str, _File] = {}  # by ID

    def apply(self, line: str) -> None:
        kind, *words = line.split("\t")
        if kind == "open":
            if words[1] not in self._names:
                self._make(words[1], _File())
            file = self._names[words[1]]
            assert file is not None
            self._files[words[0]] = file
        elif kind == "write":
            self._files[words[0]].pending.append((int(words[1]), bytes.fromhex(words[2])))
        elif kind == "truncate":
            self._files[words[0]].pending.append((int(words[1]), None))
        elif kind == "sync":
            self._files[words[0]].sync()
        elif kind == "mkdir":
            self._make(words[0], None)
        elif kind == "remove":
            self._change(_Change(_parent(words[0]), {}, (words[0],)))
        elif kind == "link":
            self._make(words[1], self._names[words[0]])
        elif kind == "rename":
            self._rename(*words)
        else:
            assert kind == "sync_directory", line
            self._sync_directory(words[0])

    def _make(self, path: str, node: _File | None) -> None:
        self._change(_Change(_parent(path), {path: node}))

    def _rename(self, path: str, new_path: str) -> None:
        made = {new_path: self._names[path]}
        if _parent(path) == _parent(new_path):
            self._change(_Change(_parent(path), made, (path,)))
        else:  # as strict as it can be: each directory has its own fate
            self._change(_Change(_parent(new_path), made))
            self._change(_Change(_parent(path), {}, (path,)))

    def _change(self, change: _Change) -> None:
        change.apply(self._names)
        self._pending.append(change)

    def _sync_directory(self, directory: str) -> None:
        for change in self._pending:
            if change.directory == directory:
                change.apply(self._durable)
        self._pending = [change for change in self._pending if change.directory != directory]

    def killed(self) -> State:
        """After the end of the process: all that was asked for has happened."""
        return _Left(self._names, _File.content)

    def powerless(self) -> State:
        """After a power failure that took everything that was not synced."""
        return _Left(self._durable, lambda file: file.durable)

    def torn(self, seed: int) -> State:
        """After a power failure that took some of it."""
        lost = random.Random(seed)
        names = dict(self._durable)
        for change in self._pending:
            if lost.random() < 0.5:
                change.apply(names)
        return _Left(names, lambda file: file.content(lost))


class _Left(State):
    """What can be reached from the root, until the disk is changed; content is put together when it is asked for."""

    def __init__(self, names: _Names, content: Callable[[_File], bytes]) -> None:
        self._content = content
        self._contents: dict[int, bytes] = {}  # of each file once, however many names it has
        self._nodes: _Names = {}
        for path in sorted(names, key=lambda path: path.count("/")):
            if "/" not in path or self._nodes.get(_parent(path), _File()) is None:
                self._nodes[path] = names[path]

    def __getitem__(self, path: str) -> bytes | None:
        file = self._nodes[path]
        if file is None:
            return None
        if id(file) not in self._contents:
            self._contents[id(file)] = self._content(file)
        return self._contents[id(file)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def read(root: Path) -> State:
    """A directory as it is."""
    paths = sorted(root.rglob("*"))
    return {path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes() for path in paths}


def restore(root: Path, state: State) -> Path:
    """Make a directory, and all below it, what it was."""
    root.mkdir(exist_ok=True)
    for path in sorted(root.rglob("*"), reverse=True):
        if path.relative_to(root).as_posix() not in state:
            path.rmdir() if path.is_dir() else path.unlink()
    for name, data in sorted(state.items()):
        path = root / name
        if data is None:
            path.mkdir(exist_ok=True)
        elif not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
    return root
