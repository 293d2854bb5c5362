"""``cimlayer stat``."""

from __future__ import annotations

import base64
from typing import Any

import click

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.output import Output, attribute_names, bytes_text, counted, iso_time, kind, shown
from cimlayer.errors import CorruptImageError, FormatError
from cimlayer.formats.extattributes import ExtendedAttribute, parse_extended_attributes
from cimlayer.formats.reparse import parse_reparse_data
from cimlayer.formats.sddl import sddl_from_descriptor

_TIMES = ("creation_time", "last_write_time", "change_time", "last_access_time")

Facts = dict[str, Any]


@click.command("stat")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("path", metavar="PATH")
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object, with FILETIMEs, and buffers in base64.")
def command(image: str, path: str, as_json: bool) -> None:
    """Show all metadata of a file.

    Times are in UTC with all decimals, the security descriptor is in SDDL. All names of a file with hard links are
    listed. The path / is the root directory.
    """
    output = Output()
    with open_image(image) as reader:
        facts = _facts(reader, path)
    if as_json:
        output.json(facts)
    else:
        output.fields(_fields(facts))


def _facts(reader: ImageReader, path: str) -> Facts:
    entry = reader.stat(path)
    return {
        "path": shown(path),
        "type": kind(entry),
        "size": entry.size,
        "file_id": entry.file_id,
        "names": _names(reader, path, entry),
        "attributes": attribute_names(entry.attributes),
        "attribute_bits": entry.attributes,
        **{name: _time(getattr(entry, name)) for name in _TIMES},
        "security_descriptor": _descriptor(reader.security_descriptor(entry)),
        "extended_attributes": _extended_attributes(reader.extended_attributes(entry)),
        "reparse_point": _reparse_point(reader.reparse_data(entry)),
        "streams": [{"name": stream.name, "size": stream.size} for stream in reader.streams(entry)],
        "data_is_sparse": entry.sparse,
    }


def _names(reader: ImageReader, path: str, entry: ImageEntry) -> list[str] | None:
    """All paths of a file, found by a walk; None if a damaged directory prevents it."""
    if entry.is_directory:
        return [shown(path)]
    try:
        return [shown(inner) for inner, other in reader.walk() if other.file_id == entry.file_id]
    except CorruptImageError:
        return None


def _time(filetime: int) -> Facts:
    return {"iso": iso_time(filetime), "filetime": filetime}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _descriptor(data: bytes) -> Facts:
    facts: Facts = {"base64": _base64(data)}
    try:
        facts["sddl"] = sddl_from_descriptor(data)
    except FormatError as error:
        facts["error"] = str(error)
    return facts


def _extended_attributes(data: bytes) -> Facts | None:
    if not data:
        return None
    facts: Facts = {"base64": _base64(data)}
    try:
        facts["attributes"] = [_attribute(attribute) for attribute in parse_extended_attributes(data)]
    except FormatError as error:
        facts["error"] = str(error)
    return facts


def _attribute(attribute: ExtendedAttribute) -> Facts:
    return {"name": attribute.name, "flags": attribute.flags, "base64": _base64(attribute.value)}


def _reparse_point(data: bytes) -> Facts | None:
    if not data:
        return None
    facts: Facts = {"base64": _base64(data)}
    try:
        point = parse_reparse_data(data)
    except FormatError as error:
        return facts | {"error": str(error)}
    facts |= {"tag": point.tag, "kind": point.tag_name}
    if point.target is not None:
        facts |= {
            "target": point.target,
            "relative": point.relative,
            "print_name": point.print_name,
            "substitute_name": point.substitute_name,
        }
    return facts


def _fields(facts: Facts) -> dict[str, str]:
    names = facts["names"]
    fields = {
        "path": facts["path"],
        "type": facts["type"],
        "size": counted(facts["size"], "byte"),
        "file ID": str(facts["file_id"]),
        "attributes": " ".join(facts["attributes"]) or "none",
    }
    for name in _TIMES:
        time = facts[name]
        fields[name.replace("_", " ")] = time["iso"] or f"FILETIME {time['filetime']}"
    descriptor = facts["security_descriptor"]
    fields["security"] = descriptor.get("error") or descriptor["sddl"] or "empty"
    if names is None:
        fields["names"] = "unknown: a directory in this CIM is damaged"
    elif len(names) > 1:
        fields |= {f"name {number}": name for number, name in enumerate(names, 1)}
    if facts["reparse_point"]:
        fields["reparse point"] = _reparse_text(facts["reparse_point"])
    if facts["extended_attributes"]:
        fields |= _attribute_fields(facts["extended_attributes"])
    for stream in facts["streams"]:
        fields[f"stream {stream['name']}"] = counted(stream["size"], "byte")
    if facts["data_is_sparse"]:
        fields["data"] = "sparse: all zeros, nothing stored"
    return fields


def _reparse_text(point: Facts) -> str:
    if "error" in point:
        return str(point["error"])
    target = point.get("target")
    return f"{point['kind']} to {target}" if target else str(point["kind"])


def _attribute_fields(attributes: Facts) -> dict[str, str]:
    if "error" in attributes:
        return {"EAs": attributes["error"]}
    values = {one["name"]: base64.b64decode(one["base64"]) for one in attributes["attributes"]}
    return {f"EA {name}": bytes_text(value) for name, value in values.items()}
