"""Reparse points, decoded for people and for copies outside an image.

Source: [MS-FSCC] 2.1.2 (buffers and tags); go-winio, reparse.go.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from cimlayer.errors import FormatError

SYMBOLIC_LINK = 0xA000000C
MOUNT_POINT = 0xA0000003
LINUX_SYMBOLIC_LINK = 0xA000001D

TAG_NAMES = {
    SYMBOLIC_LINK: "symbolic link",
    MOUNT_POINT: "mount point",
    LINUX_SYMBOLIC_LINK: "Linux symbolic link",
    0x80000013: "deduplicated file",
    0x80000014: "NFS file",
    0x80000017: "file in a WIM",
    0x80000018: "container isolation",
    0x8000001B: "app execution link",
    0x80000023: "Unix socket",
    0x80000024: "Linux FIFO",
    0x80000025: "Linux character device",
    0x80000026: "Linux block device",
    0x9000001A: "cloud file",
    0x90001018: "container isolation",
    0xA000001F: "container isolation tombstone",
    0xA0000027: "container isolation link",
}

_HEADER = struct.Struct("<IHH")
_NAMES = struct.Struct("<4H")
_MICROSOFT = 0x80000000
_GUID_SIZE = 16
_RELATIVE = 1
_LONGEST_TARGET = 8000  # code units
_DRIVE = re.compile("[A-Za-z]:")


@dataclass(slots=True, frozen=True)
class ReparsePoint:
    """A REPARSE_DATA_BUFFER: ``data`` is what follows its header, the names are those of links."""

    tag: int
    data: bytes
    substitute_name: str | None = None
    print_name: str | None = None
    relative: bool = False

    @property
    def tag_name(self) -> str:
        """The tag in words, or as a number."""
        return TAG_NAMES.get(self.tag, f"reparse point {self.tag:#010x}")

    @property
    def target(self) -> str | None:
        """Where a link or mount point leads, as people write it; None for anything else."""
        return self.print_name or (self.substitute_name and _from_native(self.substitute_name))


def parse_reparse_data(buffer: bytes) -> ReparsePoint:
    """Decode a REPARSE_DATA_BUFFER; FormatError with the byte offset for one that contradicts itself."""
    if len(buffer) < _HEADER.size:
        raise FormatError("shorter than its header", "reparse data", 0)
    tag, length, _ = _HEADER.unpack_from(buffer)
    start = _HEADER.size if tag & _MICROSOFT else _HEADER.size + _GUID_SIZE
    if start + length > len(buffer):
        raise FormatError(f"{length} bytes of data do not fit", "reparse data", 4)
    data = buffer[start : start + length]
    if tag in (SYMBOLIC_LINK, MOUNT_POINT):
        return _link(tag, data)
    if tag == LINUX_SYMBOLIC_LINK:
        target = data[4:].decode("utf-8", "backslashreplace")
        return ReparsePoint(tag, data, print_name=target, relative=not target.startswith("/"))
    return ReparsePoint(tag, data)


def _link(tag: int, data: bytes) -> ReparsePoint:
    names = _NAMES.size + (4 if tag == SYMBOLIC_LINK else 0)
    if len(data) < names:
        raise FormatError("the fields of the link are cut short", "reparse data", _HEADER.size)
    substitute_at, substitute_size, print_at, print_size = _NAMES.unpack_from(data)
    flags = int.from_bytes(data[_NAMES.size : names], "little")

    def name(at: int, size: int, field: int) -> str:
        if names + at + size > len(data) or size % 2:
            raise FormatError("a name reaches beyond the data", "reparse data", _HEADER.size + field)
        return data[names + at : names + at + size].decode("utf-16-le", "surrogatepass")

    return ReparsePoint(
        tag,
        data,
        substitute_name=name(substitute_at, substitute_size, 0),
        print_name=name(print_at, print_size, 4),
        relative=bool(flags & _RELATIVE),
    )


def symbolic_link_data(target: str) -> bytes:
    """The REPARSE_DATA_BUFFER of a symbolic link, as an import makes it; ValueError for a target that none can have."""
    shown = target.replace("/", "\\")
    leads = _native(shown)
    names = [text.encode("utf-16-le", "surrogatepass") for text in (leads, shown)]
    if not target or len(names[1]) > 2 * _LONGEST_TARGET:
        raise ValueError(f"no target of a symbolic link: {target[:40]!r}")
    fields = (0, len(names[0]), len(names[0]) + 2, len(names[1]))
    flags = _RELATIVE if leads == shown else 0
    data = _NAMES.pack(*fields) + flags.to_bytes(4, "little") + names[0] + b"\0\0" + names[1] + b"\0\0"
    return _HEADER.pack(SYMBOLIC_LINK, len(data), 0) + data


def tar_target(point: ReparsePoint) -> str | None:
    """The target, with slashes, of which an import makes this link or mount point; None if of none.

    It is the name that the link shows, unless that is not where it leads.
    """
    leads = (point.substitute_name or "").replace("/", "\\")
    for target in ((point.print_name or "").replace("/", "\\"), _from_native(leads)):
        if _native(target) == leads and (point.tag == MOUNT_POINT or point.relative == (target == leads)):
            return target.replace("\\", "/")
    return None


def _native(target: str) -> str:
    r"""The substitute name that an import makes of a target."""
    if target.startswith("\\\\?\\"):
        return "\\??\\" + target[4:]
    if target.startswith("\\\\"):
        return "\\??\\UNC\\" + target[2:]
    return "\\??\\" + target if _DRIVE.match(target) else target


def _from_native(name: str) -> str:
    r"""A name of the object manager's ``\??\`` directory as programs write it."""
    if name.startswith("\\??\\UNC\\"):
        return "\\\\" + name[8:]
    if not name.startswith("\\??\\"):
        return name
    return name[4:] if _DRIVE.match(name, 4) else "\\\\?\\" + name[4:]
