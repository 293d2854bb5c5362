"""What a file system of Windows keeps of a file in an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cimfs_ext import extractor, winfiles

_KEPT = {  # where the volume has what
    winfiles.DESCRIPTORS: extractor.KEEP_DESCRIPTOR,
    winfiles.EXTENDED_ATTRIBUTES: extractor.KEEP_EAS,
    winfiles.STREAMS: extractor.KEEP_STREAMS,
    winfiles.REPARSE_POINTS: extractor.KEEP_REPARSE,
}


def kept_metadata(directory: int) -> int:
    """What of the metadata files below an open directory can have, as a :class:`FileExtractor` takes it."""
    features = winfiles.features(directory)
    kept = extractor.KEEP_STAMPS
    for feature, kind in _KEPT.items():
        if features & feature:
            kept |= kind
    return kept


@contextmanager
def privileged() -> Iterator[None]:
    """The privileges of backup and restore, for descriptors and links of others, as far as the account has them."""
    winfiles.use_privileges(True)
    try:
        yield
    finally:
        winfiles.use_privileges(False)
