"""What a destination cannot hold, counted by kind."""

from __future__ import annotations

from collections import Counter

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.image.kinds import (
    ATTRIBUTES,
    EXTENDED_ATTRIBUTES,
    HARD_LINKS,
    REPARSE_DATA,
    SECURITY_DESCRIPTOR,
    STREAMS,
    TIMES,
)


class Losses:
    """How many entries lose each kind of metadata; of streams and hard links, how many are lost."""

    def __init__(self, image: ImageReader) -> None:
        self.counts: Counter[str] = Counter()
        self._image = image
        self._plain: dict[int, bool] = {}  # by the region offset of a descriptor, which many files share

    def add_plain(self, entry: ImageEntry, *, as_link: bool = False, count: int = 1) -> None:
        """So many entries that are like this one become files of the host with nothing else, or symbolic links."""
        descriptor, extended_attributes, reparse_data, streams = self._image.attached(entry)
        if not ATTRIBUTES.plain(entry, ATTRIBUTES.value(self._image, entry)):
            self.counts[ATTRIBUTES.name] += count
        if not TIMES.plain(entry, TIMES.value(self._image, entry)):
            self.counts[TIMES.name] += count
        if descriptor and not self._is_plain(entry, descriptor):
            self.counts[SECURITY_DESCRIPTOR.name] += count
        if extended_attributes:
            self.counts[EXTENDED_ATTRIBUTES.name] += count
        if reparse_data and not as_link:
            self.counts[REPARSE_DATA.name] += count
        if streams:
            self.counts[STREAMS.name] += len(self._image.streams(entry))

    def _is_plain(self, entry: ImageEntry, offset: int) -> bool:
        if offset not in self._plain:
            self._plain[offset] = SECURITY_DESCRIPTOR.plain(entry, self._image.security_descriptor(entry))
        return self._plain[offset]

    def add_copy(self) -> None:
        """A hard link becomes a file of its own."""
        self.counts[HARD_LINKS.name] += 1
