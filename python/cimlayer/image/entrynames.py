"""Names of an image outside it: as parts of a path, on the host or in a tar, and as targets of links.

A forged image may have names that no file of Windows can have, and that would mean something else in a path. Names with
a separator or NUL in them are refused by the reader itself.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from cimfs_ext.entries import ImageEntry
from cimfs_ext.names import is_file_name
from cimfs_ext.reader import ImageReader
from cimlayer.errors import CorruptImageError, FormatError

if TYPE_CHECKING:
    from cimfs_ext.streamentry import StreamEntry
    from cimlayer.formats.reparse import ReparsePoint

_SURE_NAME = 128  # bytes that all take; the least is the 143 of eCryptfs
_FROM_ROOT = r"(?:\\\?\?\\)?(?:[A-Za-z]:|Volume\{[0-9A-Fa-f-]{36}\})(?=\\|$)|(?=\\(?![\\?]))"
_ROOTS = r"(?i)(?:UtilityVM\\)?Files(?=\\)"  # that a drive of a layer has for its root
_MAX_TARGET = 1023  # bytes: of the usual file systems, XFS takes the least


def check_image(image: ImageReader) -> None:
    """TypeError for a path where an open image is needed."""
    if not isinstance(image, ImageReader):
        raise TypeError(f"an ImageReader is needed, not {type(image).__name__}")


def check_name(name: str, path: str) -> None:
    """CorruptImageError, which names the path inside the image, if no file or directory can have this name."""
    if not is_file_name(name):
        raise CorruptImageError(errno.EBADMSG, "a name that no file of Windows can have", path)


def checked_streams(image: ImageReader, path: str, entry: ImageEntry) -> list[StreamEntry]:
    """The alternate streams of an entry; CorruptImageError if none can have a name that one of them has."""
    streams: list[StreamEntry] = image.streams(entry)
    for stream in streams:
        if ":" in stream.name:
            message = "a name that no stream of Windows can have"
            raise CorruptImageError(errno.EBADMSG, message, f"{path}:{stream.name}")
    return streams


def shown(path: str) -> str:
    """A path of an image as a layer tar has it: with slashes, from the root on; ``/`` for the root itself."""
    return path.replace("\\", "/").strip("/") or "/"


def host_name(name: str, directory: int) -> bytes:
    """A name as the host has it in an open directory: shortened if its file system says that it is too long."""
    whole = name.encode("utf-8", "surrogatepass")
    if len(whole) <= _SURE_NAME or os.name == "nt":  # which has the same limit as an image: 255 UTF-16 code units
        return whole
    try:
        os.stat(whole, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _short_name(name, whole, os.fpathconf(directory, "PC_NAME_MAX"))
    return whole


def _short_name(name: str, whole: bytes, longest: int) -> bytes:
    """The beginning of a name, a hash of the whole, and its extension."""
    import hashlib  # noqa: PLC0415  few names are shortened, and these take their time to load
    from pathlib import PurePosixPath  # noqa: PLC0415

    extension = PurePosixPath(name).suffix.encode("utf-8", "surrogatepass")
    if len(extension) > longest // 4:
        extension = b""
    mark = b"~" + hashlib.sha256(whole).hexdigest()[:12].encode()
    room = longest - len(mark) - len(extension)
    start = whole[:room]
    while whole[len(start)] & 0xC0 == 0x80:  # not inside a character
        start = start[:-1]
    return start + mark + extension


def _decoded(reparse_data: bytes) -> ReparsePoint | None:
    """None for malformed data."""
    from cimlayer.formats.reparse import parse_reparse_data  # noqa: PLC0415  which many commands do not need

    try:
        return parse_reparse_data(reparse_data)
    except FormatError:
        return None


def target_inside(reparse_data: bytes, depth: int) -> str | None:
    """Where a relative link leads, with slashes; None if it is not relative, might lead out, or no link can lead there.

    That is its substitute name: the print name is for people, and may say anything.
    The directory of a link is no link, so each ``..`` that stands first leads one level up; behind a name it could
    lead up from wherever another link leads.
    """
    point = _decoded(reparse_data)
    if point is None or not point.relative:
        return None
    target = point.substitute_name
    if not target or "\0" in target:
        return None
    parts = [part for part in target.replace("\\", "/").split("/") if part != "."]
    ups = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    rooted = parts[:1] == [""] or ":" in target
    found = "/".join(parts) or "."
    too_long = len(found.encode("utf-8", "surrogatepass")) > _MAX_TARGET
    return None if rooted or too_long or ups > depth or ".." in parts[ups:] else found


def target_from_root(reparse_data: bytes, path: str) -> list[str] | None:
    """The components, from the root of the image on, of where an absolute link or a mount point at ``path`` leads.

    Its drive or volume is the image, or in a layer the ``Files`` that it lies in. None if it leads to another machine,
    or is malformed.
    """
    point = _decoded(reparse_data)
    if point is None:
        return None
    target = (point.substitute_name or "").replace("/", "\\")
    drive = re.match(_FROM_ROOT, target)
    if drive is None or set(target[drive.end() :]) & {":", "\0"}:
        return None
    parts: list[str] = []
    for part in target[drive.end() :].split("\\"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    root = re.match(_ROOTS, path)
    return (root[0].split("\\") if root else []) + parts
