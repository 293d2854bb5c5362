"""What a file of Windows has and a file of the host has not, as attributes of the host's files: of its NTFS volumes, or
extended attributes of ours. Beside the files it is kept by :mod:`cimlayer.image.sidecar`.
"""

from __future__ import annotations

import errno
import io
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.errors import FormatError, PathNotFoundError
from cimlayer.formats.fileinfo import FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_SYSTEM
from cimlayer.formats.reparse import MOUNT_POINT, SYMBOLIC_LINK
from cimlayer.host import ntfs
from cimlayer.image.kinds import ATTRIBUTES, REPARSE_DATA, STREAMS, TIMES, value_kinds

LARGEST_XATTR = 1 << 16  # bytes of one value on Linux (xattr(7))
_XATTR = "user.cimlayer."
_STREAM = "stream."
_NAME = "name"
_NO_ROOM = "its metadata does not fit the extended attributes of this file system: use a sidecar"
_SYSTEM_DIRECTORY = FILE_ATTRIBUTE_SYSTEM | FILE_ATTRIBUTE_DIRECTORY
_DOES_NOT_FIT = (errno.ENOSPC, errno.E2BIG, errno.ERANGE)  # ext4 has room for some 4,000 bytes


Readable = io.RawIOBase | io.BufferedIOBase


@dataclass(slots=True)
class HostStream:
    """An alternate stream that the host keeps."""

    name: str
    size: int
    open: Callable[[], Readable]


@dataclass(slots=True)
class Found:
    """What the host keeps of one file of Windows: the values of kinds, by their names, and what is no value."""

    values: dict[str, Any] = field(default_factory=dict)
    streams: list[HostStream] = field(default_factory=list)
    name: str | None = None  # which the host may have shortened
    path: str | None = None  # in the image that it was extracted from
    link_to: str | None = None  # the path of the file that it was another name of
    live: bool = False  # it is that of the host's own file, as that is now
    warning: str = ""
    hides_streams: bool = False  # there may be some that the host does not show


class HostMetadata(Protocol):
    """A way to keep metadata with the files of the host. Entries are named within their directory, which is open."""

    keeps_reparse_points: bool  # as what they are: no link of the host is needed

    def read(self, directory: int, name: bytes) -> Found:
        """What is kept of an entry; FormatError for what nobody can have written."""

    def write(self, directory: int, name: bytes, image: ImageReader, entry: ImageEntry, renamed: bool) -> Counter[str]:
        """Keep what can be kept of an entry, the last thing that is done to it; returns the kinds of what cannot."""


class NtfsMetadata:
    """NTFS has all that an image has, but ntfs-3g does not let through every bit of it."""

    keeps_reparse_points = True

    def read(self, directory: int, name: bytes) -> Found:
        """What the volume says, which is everything but what lies behind a reparse point."""
        values = ntfs.read_values(directory, name)
        streams = [_stream(stream, content) for stream, content in ntfs.read_streams(directory, name)]
        found = Found(values, streams, live=True)
        data = values.get(REPARSE_DATA.name)
        if isinstance(data, bytes) and int.from_bytes(data[:4], "little") not in (SYMBOLIC_LINK, MOUNT_POINT):
            found.warning = "ntfs-3g does not show the content of this reparse point"
        attributes = found.values.get(ATTRIBUTES.name, 0)
        is_system_directory = attributes & _SYSTEM_DIRECTORY == _SYSTEM_DIRECTORY
        found.hides_streams = bool(data) or is_system_directory
        return found

    def write(self, directory: int, name: bytes, image: ImageReader, entry: ImageEntry, renamed: bool) -> Counter[str]:
        """Streams first: none can be reached once the entry is a reparse point. Times last: all else changes them."""
        lost: Counter[str] = Counter()
        for stream in image.streams(entry):
            fits = stream.size <= LARGEST_XATTR
            if not fits or not ntfs.write_stream(directory, name, stream.name, image.read(entry, stream.name)):
                lost[STREAMS.name] += 1
        values = {kind.name: kind.value(image, entry) for kind in value_kinds()}
        if values[REPARSE_DATA.name] and entry.is_directory and image.listdir(entry):
            values[REPARSE_DATA.name] = b""  # which would hide what the directory holds
            lost[REPARSE_DATA.name] += 1
        ends = {kind.name: values.pop(kind.name) for kind in (ATTRIBUTES, TIMES)}
        lost.update(ntfs.write_values(directory, name, values | ends))
        return lost


class XattrMetadata:
    """Extended attributes of the user, for whom they mean nothing.

    Their names begin with ``user.cimlayer.``: ``attributes`` and ``times`` as decimal text (the times in the order
    creation, last write, change, last access, FILETIME), ``security_descriptor``, ``extended_attributes`` and
    ``reparse_data`` as the buffers are, where there are any, ``stream.NAME``, and ``name`` if it is too long for the
    host.
    """

    keeps_reparse_points = False

    def read(self, directory: int, name: bytes) -> Found:
        """What :meth:`write` has written; links of the host have none."""
        found = Found()
        path = b"/proc/self/fd/%d/%s" % (directory, name)
        for attribute in _own_attributes(path):
            value = os.getxattr(path, attribute, follow_symlinks=False)
            self._take(found, attribute.removeprefix(_XATTR), value)
        return found

    @staticmethod
    def _take(found: Found, name: str, value: bytes) -> None:
        if name == _NAME:
            found.name = value.decode("utf-8", "surrogatepass")
        elif name.startswith(_STREAM):
            stream = os.fsencode(name.removeprefix(_STREAM)).decode("utf-8", "surrogatepass")
            found.streams.append(_stream(stream, value))
        else:
            for kind in value_kinds():
                if kind.name == name:
                    try:
                        found.values[name] = kind.of_attribute(value)
                    except ValueError as error:
                        raise FormatError(f"malformed: {value[:40]!r}", _XATTR + name) from error

    def write(self, directory: int, name: bytes, image: ImageReader, entry: ImageEntry, renamed: bool) -> Counter[str]:
        """OSError (ENOTSUP) where the file system has no extended attributes."""
        lost: Counter[str] = Counter()
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            for attribute in attribute_names(image, entry):
                try:
                    self._set(fd, attribute, attribute_value(image, entry, attribute) or b"")
                except OSError as error:
                    if error.errno not in _DOES_NOT_FIT:
                        raise
                    kind = attribute.removeprefix(_XATTR)
                    lost[STREAMS.name if kind.startswith(_STREAM) else kind] += 1
            if renamed:
                self._set(fd, _XATTR + _NAME, entry.name.encode("utf-8", "surrogatepass"))
        finally:
            os.close(fd)
        return lost

    @staticmethod
    def _set(fd: int, attribute: str, value: bytes) -> None:
        os.setxattr(fd, attribute.encode("utf-8", "surrogatepass"), value)


def _own_attributes(path: bytes) -> list[str]:
    try:
        return [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith(_XATTR)]
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return []
        raise


def _stream(name: str, content: bytes) -> HostStream:
    return HostStream(name, len(content), lambda: io.BytesIO(content))


def attribute_names(image: ImageReader, entry: ImageEntry) -> list[str]:
    """What the metadata of an entry is called as extended attributes of the host: see :class:`XattrMetadata`."""
    values = [_XATTR + kind.name for kind in value_kinds() if kind.attribute(kind.value(image, entry))]
    return values + [f"{_XATTR}{_STREAM}{stream.name}" for stream in image.streams(entry)]


def attribute_value(image: ImageReader, entry: ImageEntry, attribute: str) -> bytes | None:
    """One of the extended attributes of :func:`attribute_names`; None if the entry has no such one.

    OSError (E2BIG), before anything is read, for a stream that is larger than an attribute can be.
    """
    if not attribute.startswith(_XATTR):
        return None
    name = attribute.removeprefix(_XATTR)
    for kind in value_kinds():
        if kind.name == name:
            return kind.attribute(kind.value(image, entry)) or None
    if not name.startswith(_STREAM):
        return None
    stream = name.removeprefix(_STREAM)
    try:
        _, size = image.location(entry, stream)
    except PathNotFoundError:
        return None
    if size > LARGEST_XATTR:
        raise OSError(errno.E2BIG, _NO_ROOM)
    return image.read(entry, stream)
