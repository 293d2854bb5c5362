"""What a file of Windows has and a file of the host has not, kept beside extracted files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.errors import PathNotFoundError
from cimlayer.events import CancellationToken
from cimlayer.host.paths import errors_name
from cimlayer.image.kinds import value_kinds

_PIECE = 1 << 20
_XATTR = "user.cimlayer."
_LARGEST_XATTR = 1 << 16  # bytes of one value on Linux (xattr(7))
_NO_ROOM = "its metadata does not fit the extended attributes of this file system: use a sidecar"


class Sidecar:
    """The directory ``DESTINATION.metadata`` beside the destination of an extraction.

    ``entries.jsonl`` has one JSON object for each entry, in the order of the tree, each directory before what it
    holds: ``path`` (inside the image, with slashes), ``file`` (where it lies below the destination), ``type``,
    ``attributes`` (FILE_ATTRIBUTE bits), the four times (FILETIME), ``security_descriptor`` (base64), and where there
    are any: ``extended_attributes`` and ``reparse_data`` (base64 of the buffers, [MS-FSCC]), ``streams`` (name,
    size, and the file below ``streams`` that has the content). A hard link to an earlier entry has ``link_to``, its
    path, and nothing of the file's own.
    """

    def __init__(self, destination: Path, cancel: CancellationToken) -> None:
        """FileExistsError if the directory is there."""
        self.directory = destination.with_name(destination.name + ".metadata")
        self._cancel = cancel
        self._entries: IO[str] | None = None
        self._streams = 0
        self._kinds = value_kinds()

    def __enter__(self) -> Sidecar:
        self.directory.mkdir()
        self._entries = (self.directory / "entries.jsonl").open("x", encoding="ascii", newline="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._entries is not None:
            with errors_name(self.directory):
                self._entries.close()

    def add(self, image: ImageReader, path: str, entry: ImageEntry, file: str, first: str | None) -> None:
        """Note one entry; ``first`` is the path under which its file was noted first, if it is not a directory's."""
        record: dict[str, object] = {
            "path": path.replace("\\", "/"),
            "file": file,
            "type": "directory" if entry.is_directory else "file",
        }
        if first is not None and first != path:
            record["link_to"] = first.replace("\\", "/")
        else:
            for kind in self._kinds:
                record |= kind.record(kind.value(image, entry))
            if streams := image.streams(entry):
                record["streams"] = [
                    {"name": stream.name, "size": stream.size, "file": self._copy(image, entry, stream.name)}
                    for stream in streams
                ]
        assert self._entries is not None
        with errors_name(self.directory):
            self._entries.write(json.dumps(record) + "\n")

    def _copy(self, image: ImageReader, entry: ImageEntry, stream: str) -> str:
        self._streams += 1
        file = self.directory / "streams" / f"{self._streams:06}"
        file.parent.mkdir(exist_ok=True)
        with errors_name(self.directory), image.open(entry, stream=stream) as source, file.open("xb") as target:
            try:
                while piece := source.read(_PIECE):
                    self._cancel.raise_if_cancelled()
                    target.write(piece)
                target.flush()
            except BaseException:
                file.unlink()
                raise
        return file.name


_STREAM = "stream."


def attribute_names(image: ImageReader, entry: ImageEntry) -> list[str]:
    """What the metadata of an entry is called as extended attributes of the host.

    The names begin with ``user.cimlayer.``: ``attributes`` and ``times`` as decimal text (the times in the order
    creation, last write, change, last access, FILETIME), ``security_descriptor``, ``extended_attributes`` and
    ``reparse_data`` as the buffers are, where there are any, and ``stream.NAME``.
    """
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
    if size > _LARGEST_XATTR:
        raise OSError(errno.E2BIG, _NO_ROOM)
    return image.read(entry, stream)


def write_extended_attributes(fd: int, image: ImageReader, entry: ImageEntry) -> None:
    """Attach the metadata of an entry to an open file or directory.

    OSError where the file system has no extended attributes (ENOTSUP) or no room for these: ext4 holds about 4,000
    bytes of them.
    """
    for name in attribute_names(image, entry):
        try:
            os.setxattr(fd, name.encode("utf-8", "surrogatepass"), attribute_value(image, entry, name) or b"")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE):
                error.strerror = _NO_ROOM
            raise
