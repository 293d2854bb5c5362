"""An image of a WIM as a tar."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator

from cimlayer.errors import FormatError, LimitError
from cimlayer.formats.fileinfo import FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_REPARSE_POINT, filetime_from_ns
from cimlayer.formats.wim import WimBlob, WimEntry, WimFile
from cimlayer.image.tarpieces import END, TarEntry, padding
from cimlayer.limits import Limits

_ENCRYPTED = 0x4000  # FILE_ATTRIBUTE_ENCRYPTED
_LARGEST_REPARSE_DATA = 0xFFFF - 8  # bytes


def wim_as_tar(path: str, image: str | None, limits: Limits) -> Iterator[bytes]:
    """The entries of one image: directories, then files in the order in which they are stored, then hard links.

    All metadata that a WIM has is kept, but for object IDs and short names, of which an image has none; the change
    time, which it has not, is the time of the last write. FormatError names the entry that cannot be taken, LimitError
    is for more entries than ``limits`` allow; ValueError if there is no such image.
    """
    with WimFile(path) as wim:
        directories: list[WimEntry] = []
        files: list[WimEntry] = []
        names: dict[int, str] = {}
        links: list[TarEntry] = []

        def visit(entry: WimEntry) -> None:
            if len(directories) + len(files) + len(links) >= limits.files:
                raise LimitError("files", limits.files, entry.path)
            first = names.setdefault(entry.links, entry.path) if entry.links else entry.path
            if first != entry.path:
                links.append(TarEntry(entry.path, "hard link", target=first))
            elif entry.attributes & FILE_ATTRIBUTE_DIRECTORY:
                directories.append(entry)
            else:
                files.append(entry)

        wim.walk(wim.image(image), visit)
        files.sort(key=_place)
        for entry in directories + files:
            yield from _entry(wim, entry)
        for link in links:
            yield link.header()
    yield END


def _place(entry: WimEntry) -> tuple[int, int]:
    """Where content is stored: what lies in one solid resource is decompressed in one go."""
    blob = entry.content
    if blob is None:
        return 0, 0
    return (blob.raw[0], blob.offset) if blob.raw else (blob.offset, 0)


def _entry(wim: WimFile, entry: WimEntry) -> Iterator[bytes]:
    if entry.attributes & _ENCRYPTED:
        raise FormatError("it is encrypted", entry.path)
    records = {"MSWINDOWS.fileattr": str(entry.attributes)} if entry.attributes else {}
    if entry.security_descriptor:
        records["MSWINDOWS.rawsd"] = base64.b64encode(entry.security_descriptor).decode()
    content = entry.content
    if entry.attributes & FILE_ATTRIBUTE_REPARSE_POINT:
        records["CIMLAYER.reparse"] = base64.b64encode(_reparse_data(wim, entry)).decode()
        content = None
    is_directory = entry.attributes & FILE_ATTRIBUTE_DIRECTORY
    yield from _stream(wim, entry, entry.path, content, "directory" if is_directory else "file", records)
    for name, blob in entry.streams:
        yield from _stream(wim, entry, f"{entry.path}:{name}", blob, "file", {})


def _stream(
    wim: WimFile, entry: WimEntry, path: str, blob: WimBlob | None, kind: str, records: dict[str, str]
) -> Iterator[bytes]:
    size = blob.size if blob is not None else 0
    write, access, creation = map(
        filetime_from_ns, (entry.last_write_time, entry.last_access_time, entry.creation_time)
    )
    if kind == "directory":
        yield TarEntry(path, "directory", 0, "", write, access, creation, records).header()
        return
    yield TarEntry(path, "file", size, "", write, access, creation, records).header()
    yield from wim.read(blob, path)
    yield padding(size)


def _reparse_data(wim: WimFile, entry: WimEntry) -> bytes:
    """A whole REPARSE_DATA_BUFFER ([MS-FSCC] 2.1.2): a WIM has what follows the header, and the tag."""
    size = entry.content.size if entry.content is not None else 0
    if size > _LARGEST_REPARSE_DATA:
        raise FormatError("a reparse point of more than 65,535 bytes", entry.path)
    data = b"".join(wim.read(entry.content, entry.path))
    return struct.pack("<IHH", entry.reparse_tag, len(data), 0) + data
