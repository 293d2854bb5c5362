"""Entries of an image as lines and as JSON objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import click

from cimfs_ext.entries import ImageEntry
from cimfs_ext.entrylines import EntryLines
from cimfs_ext.reader import ImageReader
from cimlayer.cli.output import Output, amount, json_text
from cimlayer.errors import FormatError

Form = Literal["name", "target", "long", "json"]


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


def entry_lines(image: ImageReader, output: Output, form: Form, human: bool = False) -> EntryLines:
    """Lines about entries on standard output, in a ``with`` block: whatever else is written there comes after it."""
    return EntryLines(
        image,
        form,
        write=output.written,
        attributes=_json_attributes if form == "json" else _letters,
        target=partial(link_target, image),
        size=amount if human else None,
        show=output.shown if output.escapes else None,
    )


def _letters(attributes: int) -> str:
    from cimlayer.formats.fileinfo import attribute_letters  # noqa: PLC0415  names alone need none

    return attribute_letters(attributes)


def _json_attributes(attributes: int) -> str:
    from cimlayer.formats.fileinfo import attribute_names  # noqa: PLC0415

    return json_text(attribute_names(attributes))


def link_target(image: ImageReader, entry: ImageEntry) -> str | None:
    """Where a link leads; None for anything else, and for a link that cannot be read (stat shows the error)."""
    if not entry.is_reparse_point:
        return None
    from cimlayer.formats.reparse import parse_reparse_data  # noqa: PLC0415  many images have no links

    try:
        return parse_reparse_data(image.reparse_data(entry)).target
    except FormatError:
        return None
