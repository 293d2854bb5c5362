"""A directory after a crash: what a recorded series of file operations may have left on the disk.

The model is the strictest one: without a sync of the file any of its writes may be lost, page by page and in any order,
and without a sync of the directory any change of a name.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096


@dataclass
class _File:
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (size, None) for a cut

    def sync(self) -> None:
        self.durable = self.content()
        self.pending = []

    def content(self, lost: random.Random | None = None) -> bytes:
        """With everything that is pending, or without what chance takes away."""
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


class Disk:
    """One directory; ``apply`` takes the lines of a journal (tests/c/record_writes.c)."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._durable = {name: _File(data) for name, data in files.items()}
        self._pending: list[dict[str, _File | None]] = []
        self._open: dict[str, _File] = {}

    def apply(self, line: str) -> None:
        kind, *words = line.split()
        names = self._names()
        if kind == "create":
            assert words[1] not in names
            self._open[words[0]] = _File()
            self._pending.append({words[1]: self._open[words[0]]})
        elif kind == "open":
            self._open[words[0]] = names[words[1]]
        elif kind == "write":
            data = bytes.fromhex(words[2]) if len(words) == 3 else b""
            self._open[words[0]].pending.append((int(words[1]), data))
        elif kind == "truncate":
            self._open[words[0]].pending.append((int(words[1]), None))
        elif kind == "sync":
            self._open[words[0]].sync()
        elif kind == "rename":
            self._pending.append({words[1]: names[words[0]], words[0]: None})
        elif kind == "remove":
            self._pending.append({words[0]: None})
        else:
            assert kind == "sync_directory"
            self._durable, self._pending = names, []

    def _names(self, lost: random.Random | None = None) -> dict[str, _File]:
        names: dict[str, _File | None] = dict(self._durable)
        for change in self._pending:
            if lost is None or lost.random() < 0.5:
                names |= change
        return {name: file for name, file in names.items() if file is not None}

    def killed(self) -> dict[str, bytes]:
        """After the end of the process: all that was asked for has happened."""
        return {name: file.content() for name, file in self._names().items()}

    def powerless(self) -> dict[str, bytes]:
        """After a power failure that took everything that was not synced."""
        return {name: file.durable for name, file in self._durable.items()}

    def torn(self, seed: int) -> dict[str, bytes]:
        """After a power failure that took some of it."""
        lost = random.Random(seed)
        return {name: file.content(lost) for name, file in self._names(lost).items()}


def restore(directory: Path, files: dict[str, bytes]) -> Path:
    """A directory with these files and no others."""
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        if path.name not in files:
            path.unlink()
    for name, data in files.items():
        path = directory / name
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
    return directory
