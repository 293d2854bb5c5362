"""Alternate streams of a mounted image as files ``NAME:STREAM`` beside their own."""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading

from cimfs_ext.mounted import MountedFiles
from cimfs_ext.reader import ImageReader, StreamReader

_FIRST = 1 << 40  # of their nodes, and of their numbers in a directory: behind those of all files
_ATTRIBUTES = struct.Struct("=6Q10I")  # struct fuse_attr (linux/fuse.h)
_ATTRIBUTES_OUT = struct.Struct("=QII")  # what stands before it in the reply for a node
_ENTRY_OUT = struct.Struct("=QQQQII")  # and in that for a name
_DIRENT = struct.Struct("=QQII")
_FOR_EVER = 1 << 30  # seconds
_BLOCK = 512


class StreamFiles:
    """Nodes beyond those of files. Threads may ask together."""

    def __init__(self, image: ImageReader, files: MountedFiles) -> None:
        self._image = image
        self._files = files
        self._lock = threading.Lock()
        self._nodes: dict[tuple[int, str], int] = {}  # of the node of a file, and the name of its stream
        self._streams: list[tuple[int, str]] = []

    def has(self, node: int) -> bool:
        """Whether a node is that of a stream."""
        return node >= _FIRST

    def open(self, node: int) -> StreamReader:
        """The content."""
        file, stream = self._streams[node - _FIRST]
        return self._image.open(self._files.entry(file), stream=stream)

    def lookup(self, parent: int, name: bytes) -> bytes:
        """``struct fuse_entry_out``; FileNotFoundError if there is none of that name."""
        file_name, _, stream = name.partition(b":")
        (file, *_) = _ENTRY_OUT.unpack_from(self._files.lookup(parent, file_name))
        if not file:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._entry(self._node(file, stream.decode("utf-8", "surrogatepass")))

    def attributes(self, node: int) -> bytes:
        """``struct fuse_attr_out``."""
        return _ATTRIBUTES_OUT.pack(_FOR_EVER, 0, 0) + self._attributes(node)

    def read_directory(self, parent: int, offset: int, size: int, *, plus: bool) -> bytes:
        """The streams of all that is in a directory, from a number on, as of :class:`MountedFiles`."""
        found = [
            (f"{name}:{stream.name}".encode("utf-8", "surrogatepass"), file, stream.name)
            for name, file in self._files.children(parent)
            for stream in self._image.streams(self._files.entry(file))
        ]
        packed = b""
        for number in range(max(offset - _FIRST, 0), len(found)):
            name, file, stream = found[number]
            node = self._node(file, stream)
            one = self._entry(node) if plus else b""
            one += _DIRENT.pack(node, _FIRST + number + 1, len(name), stat.S_IFREG >> 12) + name
            one += bytes(-len(one) % 8)
            if len(packed) + len(one) > size:
                break
            packed += one
        return packed

    def _node(self, file: int, stream: str) -> int:
        with self._lock:
            node = self._nodes.setdefault((file, stream), _FIRST + len(self._streams))
            if node - _FIRST == len(self._streams):
                self._streams.append((file, stream))
            return node

    def _entry(self, node: int) -> bytes:
        return _ENTRY_OUT.pack(node, 0, _FOR_EVER, _FOR_EVER, 0, 0) + self._attributes(node)

    def _attributes(self, node: int) -> bytes:
        """Those of the file, as far as they can be a stream's."""
        file, stream = self._streams[node - _FIRST]
        _, size = self._image.location(self._files.entry(file), stream=stream)
        of_file = _ATTRIBUTES.unpack_from(self._files.attributes(file), _ATTRIBUTES_OUT.size)
        facts = list(of_file)
        facts[:3] = node, size, -(-size // _BLOCK)
        facts[9:11] = stat.S_IFREG | 0o444, 1
        return _ATTRIBUTES.pack(*facts)
