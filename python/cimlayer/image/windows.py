"""The metadata of files on a volume of Windows: what an image keeps, the volume can have, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from cimfs_ext import winfiles
from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimfs_ext.winfiles import OpenFile
from cimlayer.host import beneath
from cimlayer.image.kinds import ATTRIBUTES, EXTENDED_ATTRIBUTES, REPARSE_DATA, SECURITY_DESCRIPTOR, STREAMS, TIMES
from cimlayer.image.metadata import Found, HostStream

_PIECE = 1 << 20
_FEATURES = {  # of the volume, as GetVolumeInformation has them
    EXTENDED_ATTRIBUTES.name: winfiles.EXTENDED_ATTRIBUTES,
    REPARSE_DATA.name: winfiles.REPARSE_POINTS,
    SECURITY_DESCRIPTOR.name: winfiles.DESCRIPTORS,
    STREAMS.name: winfiles.STREAMS,
}


class WindowsMetadata:
    """The files' own. What the volume has no place for, or the caller no right to, is counted."""

    keeps_reparse_points = True

    def __init__(self, directory: int) -> None:
        """``directory`` is one of the volume, open."""
        features = winfiles.features(directory)
        self._kept = {kind for kind, feature in _FEATURES.items() if features & feature}

    def read(self, directory: int, name: bytes) -> Found:
        """What the volume says."""
        with OpenFile(name, directory) as file:
            found = Found({ATTRIBUTES.name: file.attributes, TIMES.name: file.times}, live=True)
            buffers: dict[str, Callable[[], bytes]] = {
                SECURITY_DESCRIPTOR.name: file.security_descriptor,
                EXTENDED_ATTRIBUTES.name: file.extended_attributes,
            }
            if file.reparse_tag:
                buffers[REPARSE_DATA.name] = file.reparse_data
            for kind in self._kept & buffers.keys():
                found.values[kind] = buffers[kind]()
            if STREAMS.name in self._kept:
                found.streams = [self._stream(directory, name, stream, size) for stream, size in file.streams()]
        return found

    @staticmethod
    def _stream(directory: int, name: bytes, stream: str, size: int) -> HostStream:
        return HostStream(stream, size, lambda: beneath.open_file(name, directory, stream))

    def write(self, directory: int, name: bytes, image: ImageReader, entry: ImageEntry, renamed: bool) -> Counter[str]:
        """Streams first: none can be written once the entry is read-only. Times last: all else changes them."""
        lost: Counter[str] = Counter()
        for stream in image.streams(entry):
            if STREAMS.name in self._kept:
                self._write_stream(directory, name, image, entry, stream.name)
            else:
                lost[STREAMS.name] += 1
        with OpenFile(name, directory, write=True) as file:
            for kind, set_value in (
                (EXTENDED_ATTRIBUTES, file.set_extended_attributes),
                (REPARSE_DATA, file.set_reparse_data),
                (SECURITY_DESCRIPTOR, file.set_security_descriptor),
            ):
                data = kind.value(image, entry)
                if data and not (kind.name in self._kept and set_value(data)):
                    lost[kind.name] += 1
            file.set_stamps(entry.attributes, TIMES.value(image, entry))
        return lost

    @staticmethod
    def _write_stream(directory: int, name: bytes, image: ImageReader, entry: ImageEntry, stream: str) -> None:
        with image.open(entry, stream=stream) as source, beneath.create_stream(name, directory, stream) as target:
            while piece := source.read(_PIECE):
                target.write(piece)
