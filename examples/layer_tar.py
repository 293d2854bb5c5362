"""Writes the tar of a Windows container layer, with Microsoft's records (go-winio, backuptar/tar.go).

Every entry gets times of its own, counted on from a fixed day, so that the same calls give the same bytes.
"""

import base64
import tarfile
from collections.abc import Mapping
from functools import cache
from types import TracebackType
from typing import BinaryIO

READONLY, HIDDEN = 0x1, 0x2
DIRECTORY, ARCHIVE, REPARSE_POINT = 0x10, 0x20, 0x400

FIRST_TIME = 1_577_836_800  # 2020-01-01
BLOCK = 512


@cache
def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class LayerTar:
    """One layer being written to `out`; leaving the `with` block ends the archive."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._entries = 0
        self._directories: set[str] = set()

    def __enter__(self) -> "LayerTar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._out.write(bytes(2 * BLOCK))

    def directory(self, name: str, descriptor: bytes) -> None:
        """The directory `name` and those of its parents that are not in the archive yet."""
        if name in self._directories:
            return
        parent = name.rpartition("/")[0]
        if parent:
            self.directory(parent, descriptor)
        self._directories.add(name)
        self._add(name, tarfile.DIRTYPE, self._records(DIRECTORY, descriptor))

    def file(
        self,
        name: str,
        data: bytes,
        descriptor: bytes = b"",
        *,
        sddl: str = "",
        attributes: int = ARCHIVE,
        extended_attributes: Mapping[str, bytes] | None = None,
    ) -> None:
        """A file with its descriptor, raw or as text."""
        records = self._records(attributes, descriptor, sddl)
        for ea_name, value in (extended_attributes or {}).items():
            records[f"MSWINDOWS.xattr.{ea_name}"] = _base64(value)
        self._add(name, tarfile.REGTYPE, records, data)

    def alternate_stream(self, stream: str, data: bytes) -> None:
        """A stream, `FILE:NAME:$DATA`, of the file that was added last."""
        self._add(stream, tarfile.REGTYPE, self._records(), data)

    def hard_link(self, name: str, target: str) -> None:
        """Another name for the file `target`."""
        self._add(name, tarfile.LNKTYPE, self._records(), target=target)

    def symbolic_link(self, name: str, target: str, descriptor: bytes) -> None:
        """A symbolic link to a file."""
        self._add(name, tarfile.SYMTYPE, self._records(ARCHIVE | REPARSE_POINT, descriptor), target=target)

    def whiteout(self, name: str) -> None:
        """Hides the parents' `name`, or with a slash at its end all that they have in that directory."""
        directory, _, base = name.rpartition("/")
        self._add(f"{directory}/.wh.{base or '.wh..opq'}", tarfile.REGTYPE, {})

    def _records(self, attributes: int = ARCHIVE, descriptor: bytes = b"", sddl: str = "") -> dict[str, str]:
        created = FIRST_TIME + self._entries
        records = {"MSWINDOWS.fileattr": str(attributes)}
        if descriptor:
            records["MSWINDOWS.rawsd"] = _base64(descriptor)
        if sddl:
            records["MSWINDOWS.sd"] = sddl
        records["LIBARCHIVE.creationtime"] = f"{created}.1234567"
        records["atime"] = f"{created + 3}.4567891"
        records["ctime"] = f"{created + 2}.3456789"
        records["mtime"] = f"{created + 1}.2345678"
        return records

    def _add(self, name: str, kind: bytes, records: dict[str, str], data: bytes = b"", target: str = "") -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.size, entry.pax_headers = kind, target, len(data), records
        entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        if "mtime" not in records:
            entry.mtime = FIRST_TIME + self._entries
        self._out.write(entry.tobuf(tarfile.PAX_FORMAT))
        self._out.write(data)
        self._out.write(bytes(-len(data) % BLOCK))
        self._entries += 1
