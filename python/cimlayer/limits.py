"""What untrusted input may use: :class:`Limits`, and a count of what has been used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from cimlayer.errors import LimitError

if TYPE_CHECKING:
    from cimfs_ext.streamentry import StreamEntry

UNJUDGED = 64 << 20  # bytes that any tar may have beside what the limits say, whatever it was compressed to

_AROUND_ENTRY = 16 << 10  # bytes of headers, records and padding that an entry may bring, on the average
MOST_BYTES = _LARGEST = (1 << 63) - 1
_CHARACTERS_OF_ENTRY = 256  # of a path


@dataclass(slots=True, frozen=True)
class Limits:
    """How much one layer, or one image that is read, may use; beyond is a :class:`~cimlayer.errors.LimitError`.

    Sizes claimed in a header are checked before anything is read or written for it. The defaults accept everything that
    Windows or a build produces; a service that takes untrusted layers should set its own.

    - ``files``: number of entries: files, directories, links, streams, whiteouts, and directories that are created
      because something is below them. Each takes 100 to 1,200 bytes of memory in an import, depending on the length
      of names, and up to 2,500 where an image is read; there, every 256 characters of a path count as another entry.
      A Windows installation has some hundred thousand files; the default is 4,194,304.
    - ``bytes``: content of all files and alternate streams. Shared content and holes count in full, since readers get
      them in full. The default, 1 TiB, is fifty times the 20 GB that a Windows container can write by default
      (Microsoft, "Container Storage Overview"). Everything else in a tar, such as headers, records and bytes after its
      end, may take 16 KiB for each of ``files``, and 64 MiB.
    - ``path_depth``: number of components in a path, or in the target of a hard link. The default, 1,024, is eight
      times what fits in a path of 260 units (MAX_PATH); the longest path, of 32,767 units, could have 16,384.
    - ``ratio``: decompressed size divided by compressed size of a tar, checked once more than 64 MiB have been
      decompressed. DEFLATE cannot exceed 1,032 (zlib, "Technical Details"), so the default, 1,100, accepts every gzip,
      but not zstd bombs, which can reach 30,000. It does not apply to images that are read: they are not compressed,
      and may share content at any ratio.

    Each layer of a container image has these limits for itself. ValueError for a limit outside 1 to 2**63 - 1.
    """

    files: int = 1 << 22
    bytes: int = 1 << 40
    path_depth: int = 1024
    ratio: int = 1100

    def __post_init__(self) -> None:
        """Refuse invalid limits."""
        for each in fields(self):
            value = getattr(self, each.name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
                raise ValueError(f"the limit of {each.name} must be a whole number from 1 to 2**63 - 1, not {value!r}")

    def check_tar(self, size: int, compressed: int) -> None:
        """Raise LimitError if a tar of ``size`` bytes, from a blob of ``compressed`` bytes, is too large."""
        if size <= UNJUDGED:
            return
        if size > self.ratio * compressed:
            raise LimitError("ratio", self.ratio, offset=size)
        if size - UNJUDGED > self.bytes + self.files * _AROUND_ENTRY:
            raise LimitError("bytes", self.bytes, offset=size)


DEFAULT_LIMITS = Limits()


class Usage:
    """How much of its limits an image that is read has used. ``name`` is the name of the image."""

    def __init__(self, limits: Limits, name: str) -> None:
        self._limits = limits
        self._name = name
        self._files = 0
        self._bytes = 0

    def add_entry(self, path: str) -> None:
        """Count a file, directory or link, with its path inside the image.

        Paths are kept, and a small image can have millions of long ones, in directories that share a table.
        """
        self._files += 1 + len(path) // _CHARACTERS_OF_ENTRY
        if self._files > self._limits.files:
            raise LimitError("files", self._limits.files, path, layer=self._name)
        if path.count("\\") >= self._limits.path_depth:
            raise LimitError("path_depth", self._limits.path_depth, path, layer=self._name)

    @property
    def path_depth(self) -> int:
        """The limit that nothing is added up for."""
        return self._limits.path_depth

    def room(self, path: str) -> tuple[int, int, int, int]:
        """What a directory may still add, as :meth:`cimfs_ext.extractor.OrdinaryFiles.take` wants it."""
        too_deep = bool(path) and path.count("\\") + 1 >= self._limits.path_depth
        entries = 0 if too_deep else self._limits.files - self._files
        before = len(path) + 1 if path else 0
        return entries, self._limits.bytes - self._bytes, before, _CHARACTERS_OF_ENTRY

    def add_counted(self, entries: int, size: int) -> None:
        """Count what there was room for."""
        self._files += entries
        self._bytes += size

    def add_content(self, path: str, size: int) -> None:
        """Count that many bytes of content."""
        self._bytes += size
        if self._bytes > self._limits.bytes:
            raise LimitError("bytes", self._limits.bytes, path, layer=self._name)

    def add_streams(self, path: str, streams: Iterable[StreamEntry]) -> None:
        """Count the alternate streams of an entry, each with its content."""
        for stream in streams:
            name = f"{path}:{stream.name}"
            self.add_entry(name)
            self.add_content(name, stream.size)
