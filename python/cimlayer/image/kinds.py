"""The kinds of metadata of a file of Windows: one table, which creating, extracting, exporting, comparing, mounting and
showing walk.

A kind that is a value of its own, such as a buffer, is one row here, beside its bytes in libcimfs and its method of
:class:`~cimlayer.ImageReader`. Hard links and alternate streams are rows too, but what moves them knows them: links
depend on what was written before, and streams are content.
"""

from __future__ import annotations

import base64
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cimfs_ext.entries import ImageEntry
from cimfs_ext.filetimes import iso_time, pax_seconds
from cimfs_ext.reader import ImageReader
from cimlayer.errors import CorruptImageError, FormatError
from cimlayer.formats.extattributes import parse_extended_attributes
from cimlayer.formats.fileinfo import (
    FILE_ATTRIBUTE_ARCHIVE,
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL,
    FILE_ATTRIBUTE_READONLY,
    FILE_ATTRIBUTE_REPARSE_POINT,
    FILE_ATTRIBUTE_SPARSE_FILE,
    attribute_names,
    filetime_from_ns,
)
from cimlayer.formats.reparse import MOUNT_POINT, SYMBOLIC_LINK, parse_reparse_data, tar_target
from cimlayer.formats.sddl import sddl_from_descriptor
from cimlayer.image.entrynames import shown

Facts = dict[str, Any]  # a part of a JSON object
Fields = dict[str, "str | bytes"]  # names and values for people
Records = dict[str, str]  # of a PAX header
Names = list[str] | None  # all paths of a file, None where damage elsewhere hides them
Value = TypeVar("Value")

NULL_DACL = b"\1\0\4\x80" + bytes(16)  # the descriptor of what has none
_OF_CONTENT = FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT | FILE_ATTRIBUTE_SPARSE_FILE


def _bytes(count: int) -> str:
    return f"{count} byte{'s' * (count != 1)}"


@dataclass(slots=True, frozen=True, kw_only=True)
class ValueKind(Generic[Value]):
    """A kind that is one value of an entry, and how each way out of an image and into one has it."""

    name: str  # as an aspect of differences, and in the name of the extended attribute of the host
    label: str
    value: Callable[[ImageReader, ImageEntry], Value]
    record: Callable[[Value], Facts]  # its members of a sidecar's object
    attribute: Callable[[Value], bytes]  # the extended attribute of the host, empty for none
    export: Callable[[tarfile.TarInfo, ImageEntry, Value], Records]  # may change the header; FormatError if none can be
    show: Callable[[Value], Facts]  # its members of what ``stat --json`` says
    text: Callable[[Facts], Fields]  # the same for people
    plain: Callable[[ImageEntry, Value], bool]  # whether a file of the host without metadata of Windows has it as well
    of_host: Callable[[os.stat_result, bool], Value]  # that of such a file; the bool: whether it leads to a directory
    of_record: Callable[[Facts], Value]  # what record and attribute were made of; ValueError if nothing
    of_attribute: Callable[[bytes], Value]

    def facts(self, image: ImageReader, entry: ImageEntry, _names: Names) -> Facts:
        """What ``stat --json`` says of an entry."""
        return self.show(self.value(image, entry))


@dataclass(slots=True, frozen=True, kw_only=True)
class TreeKind:
    """A kind that is more than one value: see the module."""

    name: str
    label: str
    facts: Callable[[ImageReader, ImageEntry, Names], Facts]
    text: Callable[[Facts], Fields]


def buffer_kind(
    name: str,
    label: str,
    value: Callable[[ImageReader, ImageEntry], bytes],
    *,
    record: Callable[[bytes], Facts] | None = None,
    export: Callable[[tarfile.TarInfo, ImageEntry, bytes], Records] | None = None,
    show: Callable[[bytes], Facts] | None = None,
    text: Callable[[Facts], Fields] | None = None,
    plain: Callable[[ImageEntry, bytes], bool] | None = None,
) -> ValueKind[bytes]:
    """A kind that is a buffer, empty if an entry has none. Without ``export``, no tar can carry it."""

    def record_of(data: bytes) -> Facts:
        return {name: as_base64(data)} if data else {}

    def show_buffer(data: bytes) -> Facts:
        return {name: {"base64": as_base64(data)} if data else None}

    def text_of(facts: Facts) -> Fields:
        return {label: base64.b64decode(facts[name]["base64"])} if facts[name] else {}

    def refuse(info: tarfile.TarInfo, _entry: ImageEntry, data: bytes) -> Records:
        if data:
            raise FormatError(f"a layer tar cannot carry this: {label}", info.name)
        return {}

    return ValueKind(
        name=name,
        label=label,
        value=value,
        record=record or record_of,
        attribute=bytes,
        export=export or refuse,
        show=show or show_buffer,
        text=text or text_of,
        plain=plain or (lambda _entry, data: not data),
        of_host=lambda _status, _leads_to_directory: b"",
        of_record=lambda facts: base64.b64decode(facts.get(name, ""), validate=True),
        of_attribute=bytes,
    )


def as_base64(data: bytes) -> str:
    """A buffer in the text of JSON and of PAX records."""
    return base64.b64encode(data).decode("ascii")


def _decoded(data: bytes, decode: Callable[[bytes], Facts]) -> Facts:
    """A buffer and what it says, or what is wrong with it."""
    try:
        return {"base64": as_base64(data)} | decode(data)
    except FormatError as error:
        return {"base64": as_base64(data), "error": str(error)}


# ---- attributes and times ----


def _attributes_of_host(status: os.stat_result, leads_to_directory: bool) -> int:
    """Read-only where nobody may write. Windows follows a link to a directory only if it is a directory itself."""
    if leads_to_directory:
        return FILE_ATTRIBUTE_DIRECTORY
    read_only = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o222
    return FILE_ATTRIBUTE_ARCHIVE | (FILE_ATTRIBUTE_READONLY if read_only else 0)


def _has_plain_attributes(entry: ImageEntry, attributes: int) -> bool:
    return attributes & ~_OF_CONTENT == (0 if entry.is_directory else FILE_ATTRIBUTE_ARCHIVE)


ATTRIBUTES: ValueKind[int] = ValueKind(
    name="attributes",
    label="attributes",
    value=lambda _image, entry: int(entry.attributes),
    record=lambda attributes: {"attributes": attributes},
    attribute=lambda attributes: b"%d" % attributes,
    export=lambda _info, _entry, attributes: {"MSWINDOWS.fileattr": str(attributes or FILE_ATTRIBUTE_NORMAL)},
    show=lambda attributes: {"attributes": attribute_names(attributes), "attribute_bits": attributes},
    text=lambda facts: {"attributes": " ".join(facts["attributes"]) or "none"},
    plain=_has_plain_attributes,
    of_host=_attributes_of_host,
    of_record=lambda facts: int(facts["attributes"]),
    of_attribute=int,
)

_TIMES = ("creation_time", "last_write_time", "change_time", "last_access_time")
_Times = tuple[int, int, int, int]


def _times(_image: ImageReader, entry: ImageEntry) -> _Times:
    return entry.creation_time, entry.last_write_time, entry.change_time, entry.last_access_time


def _times_of_host(status: os.stat_result, _leads_to_directory: bool) -> _Times:
    time = filetime_from_ns(status.st_mtime_ns)
    return time, time, time, time


def _times_of_attribute(data: bytes) -> _Times:
    creation, last_write, change, last_access = map(int, data.split())
    return creation, last_write, change, last_access


def _times_of_record(facts: Facts) -> _Times:
    creation, last_write, change, last_access = (int(facts[name]) for name in _TIMES)
    return creation, last_write, change, last_access


def _export_times(_info: tarfile.TarInfo, entry: ImageEntry, _times: _Times) -> Records:
    """All but the last write, which every header has."""
    return {
        "LIBARCHIVE.creationtime": pax_seconds(entry.creation_time),
        "atime": pax_seconds(entry.last_access_time),
        "ctime": pax_seconds(entry.change_time),
    }


def _text_of_times(facts: Facts) -> Fields:
    times = {name: facts[name] for name in _TIMES}
    return {name.replace("_", " "): time["iso"] or f"FILETIME {time['filetime']}" for name, time in times.items()}


TIMES: ValueKind[_Times] = ValueKind(
    name="times",
    label="times",
    value=_times,
    record=lambda times: dict(zip(_TIMES, times, strict=True)),
    attribute=lambda times: b"%d %d %d %d" % times,
    export=_export_times,
    show=lambda times: {
        name: {"iso": iso_time(time), "filetime": time} for name, time in zip(_TIMES, times, strict=True)
    },
    text=_text_of_times,
    plain=lambda entry, _times: entry.creation_time == entry.last_write_time == entry.change_time,
    of_host=_times_of_host,
    of_record=_times_of_record,
    of_attribute=_times_of_attribute,
)

# ---- buffers ----


def _text_of_descriptor(facts: Facts) -> Fields:
    descriptor = facts["security_descriptor"]
    return {"security": descriptor.get("error") or descriptor["sddl"] or "empty"}


SECURITY_DESCRIPTOR = buffer_kind(
    "security_descriptor",
    "security descriptor",
    ImageReader.security_descriptor,
    record=lambda data: {"security_descriptor": as_base64(data)},
    export=lambda _info, _entry, data: {"MSWINDOWS.rawsd": as_base64(data)} if data else {},
    show=lambda data: {"security_descriptor": _decoded(data, lambda data: {"sddl": sddl_from_descriptor(data)})},
    text=_text_of_descriptor,
    plain=lambda _entry, data: data in (b"", NULL_DACL),
)


def _export_extended_attributes(info: tarfile.TarInfo, _entry: ImageEntry, data: bytes) -> Records:
    try:
        attributes = parse_extended_attributes(data)
    except FormatError as error:
        raise FormatError(f"{error.what}: {error.reason}", info.name) from error
    for attribute in attributes:
        if not attribute.name.isascii() or "=" in attribute.name or attribute.flags:
            raise FormatError(f"a tar cannot carry the extended attribute {attribute.name!r}", info.name)
    return {f"MSWINDOWS.xattr.{attribute.name}": as_base64(attribute.value) for attribute in attributes}


def _parts_of_extended_attributes(data: bytes) -> Facts:
    parts = parse_extended_attributes(data)
    return {"attributes": [{"name": part.name, "flags": part.flags, "base64": as_base64(part.value)} for part in parts]}


def _text_of_extended_attributes(facts: Facts) -> Fields:
    attributes = facts["extended_attributes"]
    if not attributes:
        return {}
    if "error" in attributes:
        return {"EAs": attributes["error"]}
    return {f"EA {one['name']}": base64.b64decode(one["base64"]) for one in attributes["attributes"]}


EXTENDED_ATTRIBUTES = buffer_kind(
    "extended_attributes",
    "extended attributes",
    ImageReader.extended_attributes,
    export=_export_extended_attributes,
    show=lambda data: {"extended_attributes": _decoded(data, _parts_of_extended_attributes) if data else None},
    text=_text_of_extended_attributes,
)


def _export_reparse_data(info: tarfile.TarInfo, entry: ImageEntry, data: bytes) -> Records:
    """A link or mount point as a symbolic link."""
    if not entry.is_reparse_point:
        return {}
    try:
        point = parse_reparse_data(data)
    except FormatError as error:
        raise FormatError(error.reason, info.name) from error
    if point.tag not in (SYMBOLIC_LINK, MOUNT_POINT):
        raise FormatError(f"a layer tar cannot carry this reparse point: {point.tag_name}", info.name)
    if not point.substitute_name or entry.size:
        raise FormatError("a link without a target, or with content of its own", info.name)
    target = tar_target(point)
    if target is None:
        raise FormatError(f"a layer tar cannot say where this link leads: {point.substitute_name!r}", info.name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return {"MSWINDOWS.mountpoint": "1"} if point.tag == MOUNT_POINT else {}


def _parts_of_reparse_data(data: bytes) -> Facts:
    point = parse_reparse_data(data)
    facts: Facts = {"tag": point.tag, "kind": point.tag_name}
    if point.target is not None:
        facts |= {
            "target": point.target,
            "relative": point.relative,
            "print_name": point.print_name,
            "substitute_name": point.substitute_name,
        }
    return facts


def _text_of_reparse_point(facts: Facts) -> Fields:
    point = facts["reparse_point"]
    if not point:
        return {}
    if "error" in point:
        return {"reparse point": point["error"]}
    target = point.get("target")
    return {"reparse point": f"{point['kind']} to {target}" if target else point["kind"]}


REPARSE_DATA = buffer_kind(
    "reparse_data",
    "reparse data",
    ImageReader.reparse_data,
    export=_export_reparse_data,
    show=lambda data: {"reparse_point": _decoded(data, _parts_of_reparse_data) if data else None},
    text=_text_of_reparse_point,
)

# ---- what is more than a value ----


def names_of(image: ImageReader, file_ids: set[int]) -> dict[int, list[str]] | None:
    """All paths of some files, None where damage hides them: the directories alone know them, so all are read."""
    names: dict[int, list[str]] = {number: [] for number in file_ids}
    try:
        for path, entry in image.walk() if names else ():
            if entry.file_id in names:
                names[entry.file_id].append(shown(path))
    except CorruptImageError:
        return None
    return names


def _text_of_names(facts: Facts) -> Fields:
    names = facts["names"]
    if names is None:
        return {"names": "unknown: a directory in this CIM is damaged"}
    return {f"name {number}": name for number, name in enumerate(names, 1)} if len(names) > 1 else {}


HARD_LINKS = TreeKind(
    name="hard_links",
    label="hard links",
    facts=lambda _image, _entry, names: {"names": names},
    text=_text_of_names,
)


def _streams(image: ImageReader, entry: ImageEntry, _names: Names) -> Facts:
    return {"streams": [{"name": stream.name, "size": stream.size} for stream in image.streams(entry)]}


STREAMS = TreeKind(
    name="streams",
    label="streams",
    facts=_streams,
    text=lambda facts: {f"stream {stream['name']}": _bytes(stream["size"]) for stream in facts["streams"]},
)

KINDS: tuple[ValueKind[Any] | TreeKind, ...] = (
    ATTRIBUTES,
    TIMES,
    SECURITY_DESCRIPTOR,
    HARD_LINKS,
    EXTENDED_ATTRIBUTES,
    REPARSE_DATA,
    STREAMS,
)  # in the order in which they are shown


def value_kinds() -> list[ValueKind[Any]]:
    """The rows that are values; whoever walks many files asks once."""
    return [kind for kind in KINDS if isinstance(kind, ValueKind)]
