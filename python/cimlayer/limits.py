"""What a stranger's input may cost: :class:`Limits`, and the count of what was used of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from cimfs_ext.entries import StreamEntry
from cimlayer.errors import LimitError

UNJUDGED = 64 << 20  # bytes that any tar may have beside what the limits say, whatever it was compressed to

_AROUND_ENTRY = 16 << 10  # bytes of headers, records and padding that an entry may bring, on the average
MOST_BYTES = _LARGEST = (1 << 63) - 1
_CHARACTERS_OF_ENTRY = 256  # of a path


@dataclass(slots=True, frozen=True)
class Limits:
    """How much one layer, or one image that is read, may cost; beyond is a :class:`~cimlayer.errors.LimitError`.

    What a header claims is compared before anything is read or written for it. The defaults refuse nothing that
    Windows or a build made; a service that takes layers from strangers sets its own.

    - ``files``: entries: files, directories, links, streams and whiteouts, and directories that are made because
      something lies below them. They take memory: 100 to 1,200 bytes each in an import, by the length of their names;
      up to 2,500 where an image is read, so that there each 256 characters of a path count as one more.
      An installed Windows has some hundred thousand files; the default is 4,194,304.
    - ``bytes``: the content of all files and alternate streams together. Shared content and holes count in full,
      since a reader would get so much. The default, 1 TiB, is fifty times the 20 GB that a Windows container can write
      unless it is configured (Microsoft, "Container Storage Overview"). What else is in a tar, be it headers, records
      or what stands behind its end, may be 16 KiB for each of ``files``, and 64 MiB.
    - ``path_depth``: the components of a path, or of a hard link's target. The default, 1,024, is eight times what
      fits a path of 260 units (MAX_PATH); the longest path, of 32,767 units, could have 16,384.
    - ``ratio``: the bytes that a compressed tar gives for each byte of its own, looked at whenever it has given more
      than 64 MiB. DEFLATE cannot give more than 1,032 (zlib, "Technical Details"): the default, 1,100, refuses no gzip,
      but bombs in zstd, which may give 30,000. An image that is read has no ratio: it is not compressed, and sharing
      content, at whatever ratio, is what it is for.

    Each layer of a container image has the limits for itself. ValueError for a limit that is not 1 to 2**63 - 1.
    """

    files: int = 1 << 22
    bytes: int = 1 << 40
    path_depth: int = 1024
    ratio: int = 1100

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        for each in fields(self):
            value = getattr(self, each.name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
                raise ValueError(f"the limit of {each.name} must be a whole number from 1 to 2**63 - 1, not {value!r}")

    def check_tar(self, size: int, compressed: int) -> None:
        """Raise LimitError if so many bytes of a tar, from so many of its blob, are too many."""
        if size <= UNJUDGED:
            return
        if size > self.ratio * compressed:
            raise LimitError("ratio", self.ratio, offset=size)
        if size - UNJUDGED > self.bytes + self.files * _AROUND_ENTRY:
            raise LimitError("bytes", self.bytes, offset=size)


DEFAULT_LIMITS = Limits()


class Usage:
    """What an image that is read has used of its limits. ``name`` is the image's."""

    def __init__(self, limits: Limits, name: str) -> None:
        self._limits = limits
        self._name = name
        self._files = 0
        self._bytes = 0

    def add_entry(self, path: str) -> None:
        """One more file, directory or link, with its path inside the image.

        Paths are kept, and a small image can have millions of long ones: of directories that share one table.
        """
        self._files += 1 + len(path) // _CHARACTERS_OF_ENTRY
        if self._files > self._limits.files:
            raise LimitError("files", self._limits.files, path, layer=self._name)
        if path.count("\\") >= self._limits.path_depth:
            raise LimitError("path_depth", self._limits.path_depth, path, layer=self._name)

    def add_content(self, path: str, size: int) -> None:
        """So many bytes more to be read."""
        self._bytes += size
        if self._bytes > self._limits.bytes:
            raise LimitError("bytes", self._limits.bytes, path, layer=self._name)

    def add_streams(self, path: str, streams: Iterable[StreamEntry]) -> None:
        """The alternate streams of an entry, each with its content."""
        for stream in streams:
            name = f"{path}:{stream.name}"
            self.add_entry(name)
            self.add_content(name, stream.size)
