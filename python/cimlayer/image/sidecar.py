"""The directory ``DESTINATION.metadata``: what files of Windows have beside their content, next to extracted files.

``entries.jsonl`` has one JSON object for each entry, in the order of the tree, each directory before what it holds:
``path`` (inside the image, with slashes), ``file`` (where it lies below the destination), ``type``, ``attributes``
(FILE_ATTRIBUTE bits), the four times (FILETIME), ``security_descriptor`` (base64), and where there are any:
``extended_attributes`` and ``reparse_data`` (base64 of the buffers, [MS-FSCC]), ``streams`` (name, size, and the file
below ``streams`` that has the content). A hard link to an earlier entry has ``link_to``, its path, and nothing of the
file's own. Of several objects for one file the last one counts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken
from cimlayer.host.paths import errors_name
from cimlayer.image.kinds import value_kinds
from cimlayer.image.metadata import Found, HostStream, Readable

_PIECE = 1 << 20
_ENTRIES = "entries.jsonl"
_STREAMS = "streams"
_FILE = re.compile("[0-9]{1,12}")


def sidecar_of(folder: Path) -> Path:
    """Where the sidecar of a folder lies, if it has one."""
    return folder.with_name(folder.name + ".metadata")


class Sidecar:
    """A sidecar that is written."""

    def __init__(self, destination: Path, cancel: CancellationToken, *, extend: bool) -> None:
        """FileExistsError if the directory is there, unless it is to be extended."""
        self.directory = sidecar_of(destination)
        self._cancel = cancel
        self._extend = extend
        self._entries: IO[str] | None = None
        self._streams = 0
        self._kinds = value_kinds()

    def __enter__(self) -> Sidecar:
        self.directory.mkdir(exist_ok=self._extend)
        file = self.directory / _ENTRIES
        if self._extend:
            _end_last_line(file)
            names = os.listdir(self.directory / _STREAMS) if (self.directory / _STREAMS).is_dir() else []
            self._streams = max((int(name) for name in names if _FILE.fullmatch(name)), default=0)
        self._entries = file.open("a" if self._extend else "x", encoding="ascii", newline="\n")
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
        file = self.directory / _STREAMS / f"{self._streams:06}"
        file.parent.mkdir(exist_ok=True)
        with errors_name(self.directory), image.open(entry, stream=stream) as source:
            try:
                with file.open("xb") as target:
                    while piece := source.read(_PIECE):
                        self._cancel.raise_if_cancelled()
                        target.write(piece)
            except BaseException:
                file.unlink(missing_ok=True)
                raise
        return file.name


def _end_last_line(file: Path) -> None:
    """Leave out what an extraction that was ended by force has written of a line."""
    if not file.exists():
        return
    with file.open("r+b") as opened:
        data = opened.read()
        opened.truncate(data.rfind(b"\n") + 1)


class SidecarReader:
    """A sidecar that is read. FormatError, with the number of the line, for what :class:`Sidecar` does not write."""

    def __init__(self, directory: Path) -> None:
        """OSError if there is none that can be read."""
        self._directory = directory
        self._lines: dict[str, tuple[int, bytes]] = {}  # by the file that they are about
        files: dict[str, str] = {}
        targets: set[str] = set()
        with (directory / _ENTRIES).open("rb") as entries:
            for number, line in enumerate(entries, 1):
                record = self._parse(number, line)
                file, path, target = (record.get(name) for name in ("file", "path", "link_to"))
                if not isinstance(file, str) or not isinstance(path, str) or not isinstance(target, str | None):
                    raise self._malformed(number)
                self._lines[file] = (number, line)
                files[path] = file
                if target is not None:
                    targets.add(target)
        self._first_files = {path: files[path] for path in targets & files.keys()}

    def read(self, file: str, is_directory: bool | None) -> Found | None:
        """What is known of a file or directory of the host; None if nothing. The kind of a link may be either."""
        number, line = self._lines.get(file, (0, b""))
        if not number:
            return None
        record = self._parse(number, line)
        if is_directory is not None and (record.get("type") == "directory") != is_directory:
            return None
        try:
            return self._found(record)
        except (KeyError, TypeError, ValueError) as error:
            raise self._malformed(number) from error

    def _found(self, record: dict[str, Any]) -> Found:
        path = record["path"]
        found = Found(name=path.rpartition("/")[2], path=path, link_to=record.get("link_to"))
        if found.link_to is not None:
            number, line = self._lines[self._first_files[found.link_to]]
            record = self._parse(number, line)
        found.values = {kind.name: kind.of_record(record) for kind in value_kinds()}
        for stream in record.get("streams", ()):
            found.streams.append(HostStream(str(stream["name"]), int(stream["size"]), self._opener(stream["file"])))
        return found

    def _opener(self, name: str) -> Callable[[], Readable]:
        if not _FILE.fullmatch(name):
            raise ValueError(name)
        path = self._directory / _STREAMS / name

        return lambda: path.open("rb")

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise self._malformed(number) from error
        if not isinstance(record, dict):
            raise self._malformed(number)
        return record

    def _malformed(self, number: int) -> FormatError:
        return FormatError(f"line {number} is not one of a sidecar's", str(self._directory / _ENTRIES))
