"""``cimlayer find``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.cli.entries import Form, entry_lines, size_options
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.innerpaths import INNER_PATH
from cimlayer.cli.limiting import SIZE_UNITS
from cimlayer.cli.output import Output
from cimlayer.cli.parsing import Parsed, one_pattern
from cimlayer.errors import FormatError
from cimlayer.formats.fileinfo import ATTRIBUTES, filetime_from_text
from cimlayer.formats.sddl import owner_from_descriptor, short_sid
from cimlayer.image.entrynames import shown
from cimlayer.image.patterns import Patterns
from cimlayer.image.selection import each_named

Test = Callable[[str, ImageEntry], bool]

_ATTRIBUTE_BITS = {name: bit for bit, _, name in ATTRIBUTES}


def _size_test(text: str) -> Callable[[int], bool]:
    match = re.fullmatch(r"([+-]?)([0-9]{1,19})([KMGT]?)", text)
    if match is None:
        raise ValueError(f"not a size such as 4096, +1M (more) or -4K (less): {text!r}")
    size = int(match[2]) * SIZE_UNITS[match[3]]
    return {"+": size.__lt__, "-": size.__gt__, "": size.__eq__}[match[1]]


@click.command("find")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=INNER_PATH)
@click.option(
    "--name",
    "pattern",
    metavar="PATTERN",
    type=Parsed("pattern", one_pattern),
    help="It matches, such as '*.dll' in any directory, or 'Files/**/*.dll'.",
)
@click.option("--type", "kind", type=click.Choice(["file", "directory", "link"]), help="It is one of these.")
@click.option(
    "--size", metavar="[+-]SIZE", type=Parsed("size", _size_test), help="More (+), less (-) or so many bytes."
)
@click.option("--newer", metavar="TIME", type=Parsed("time", filetime_from_text), help="Last written after TIME (UTC).")
@click.option(
    "--older", metavar="TIME", type=Parsed("time", filetime_from_text), help="Last written before TIME (UTC)."
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    type=click.Choice(list(_ATTRIBUTE_BITS)),
    help="It has the attribute. Repeatable.",
)
@click.option(
    "--owner", metavar="SID", type=Parsed("SID", short_sid), help="Its owner: a SID, or an alias of SDDL such as BA."
)
@click.option("long", "-l", is_flag=True, help="Show attributes, size, last write time (UTC) and link targets.")
@size_options(human=False)
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per entry, one per line.")
def command(image: str, paths: tuple[str, ...], long: bool, human: bool, as_json: bool, **conditions: Any) -> None:
    """Find files in a CIM by name, size, time, attribute or owner.

    Lists everything below each PATH, a path or a pattern, for which all conditions hold. Case is ignored. SIZE may
    have a suffix K, M, G or T; directories have none. Prints nothing, with exit code 0, if nothing is found.
    """
    output = Output()
    form: Form = "json" if as_json else "long" if long else "name"
    with open_image(image) as reader, entry_lines(reader, output, form, human) as lines:
        tests = _tests(reader, **conditions)
        for top, top_entry in list(each_named(reader, paths or [""])):
            for path, entry in reader.walk(top) if top_entry.is_directory else [(top, top_entry)]:
                if all(test(path, entry) for test in tests):
                    lines.add(shown(path), entry)


def _tests(
    image: ImageReader,
    *,
    pattern: Patterns | None,
    kind: str | None,
    size: Callable[[int], bool] | None,
    newer: int | None,
    older: int | None,
    attributes: tuple[str, ...],
    owner: str | None,
) -> list[Test]:
    """One test for each condition, the cheapest first."""
    tests: list[Test] = []
    if kind is not None:
        tests.append(lambda _path, entry: kind == _kind_of(entry))
    if size is not None:
        tests.append(lambda _path, entry: not entry.is_directory and size(entry.size))
    if newer is not None:
        tests.append(lambda _path, entry: entry.last_write_time > newer)
    if older is not None:
        tests.append(lambda _path, entry: entry.last_write_time < older)
    if attributes:
        bits = sum({_ATTRIBUTE_BITS[each] for each in attributes})
        tests.append(lambda _path, entry: int(entry.attributes) & bits == bits)
    if pattern is not None:
        tests.append(lambda path, entry: pattern.match(path, entry.is_directory))
    if owner is not None:
        tests.append(lambda _path, entry: _owner(image, entry) == owner)
    return tests


def _kind_of(entry: ImageEntry) -> str:
    if entry.is_reparse_point:
        return "link"
    return "directory" if entry.is_directory else "file"


def _owner(image: ImageReader, entry: ImageEntry) -> str | None:
    try:
        return owner_from_descriptor(image.security_descriptor(entry))
    except FormatError:
        return None  # stat shows what is wrong with it
