"""Entries of an image as lines and as JSON objects."""

from __future__ import annotations

from collections.abc import Callable

import click

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.cli.output import Part, amount, mode, type_of
from cimlayer.errors import FormatError
from cimlayer.formats.fileinfo import attribute_names, iso_time, time_text
from cimlayer.formats.reparse import parse_reparse_data
from cimlayer.image.entrynames import shown


def size_options(*, human: bool) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """``-h``, ``--human`` and ``--bytes``; the command gets ``human``, with this default."""
    default = "--human" if human else "--bytes"
    return click.option(
        "human",
        "-h",
        "--human/--bytes",
        default=human,
        help=f"Show sizes with units of 1,024, or in bytes (default: {default}).",
    )


def size_text(size: int, human: bool) -> str:
    """A size in a column."""
    return amount(size) if human else str(size)


def name_part(name: str, entry: ImageEntry) -> Part:
    """A name, coloured; directories have a slash behind them."""
    if entry.is_reparse_point:
        return name + "/" * entry.is_directory, "link"
    return (name + "/", "directory") if entry.is_directory else name


def long_line(image: ImageReader, name: str, entry: ImageEntry, human: bool) -> list[Part]:
    """Attributes, size, last write time, name and target."""
    written = iso_time(entry.last_write_time)
    time = written[:19].replace("T", " ") if written else "-"
    size = "" if entry.is_directory else size_text(entry.size, human)
    target = link_target(image, entry)
    return [
        f"{mode(entry.attributes)} {size:>12} {time:<19} ",
        name_part(name, entry),
        f" -> {target}" if target else "",
    ]


def entry_record(image: ImageReader, path: str, entry: ImageEntry) -> dict[str, object]:
    """What ``ls --json`` and ``find --json`` say of an entry."""
    record: dict[str, object] = {
        "path": shown(path),
        "type": type_of(entry),
        "size": entry.size,
        "attributes": attribute_names(entry.attributes),
        "last_write_time": time_text(entry.last_write_time),
        "file_id": entry.file_id,
    }
    if entry.is_reparse_point:
        record["reparse_tag"] = entry.reparse_tag
        record["target"] = link_target(image, entry)
    return record


def link_target(image: ImageReader, entry: ImageEntry) -> str | None:
    """Where a link leads; None for anything else, and for a link that cannot be read (stat shows the error)."""
    if not entry.is_reparse_point:
        return None
    try:
        return parse_reparse_data(image.reparse_data(entry)).target
    except FormatError:
        return None
