"""``cimlayer find``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.cli.entries import entry_record, long_line, name_part, size_options
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.innerpaths import INNER_PATH
from cimlayer.cli.limiting import SIZE_UNITS
from cimlayer.cli.output import Output
from cimlayer.errors import FormatError
from cimlayer.formats.fileinfo import ATTRIBUTES, filetime_from_text
from cimlayer.formats.sddl import owner_from_descriptor, short_sid
from cimlayer.image.entrynames import shown
from cimlayer.image.globs import name_matcher, select

Test = Callable[[str, ImageEntry], bool]

_ATTRIBUTE_BITS = {name: bit for bit, _, name in ATTRIBUTES}


class _Parsed(click.ParamType):  # type: ignore[type-arg]  # which takes none before click 8.4
    """A value that a function makes of the text; its ValueError is a usage error."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """The value, or what is wrong with the text."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{error}.", parameter, context)


def _size_test(text: str) -> Callable[[int], bool]:
    match = re.fullmatch(r"([+-]?)([0-9]{1,19})([KMGT]?)", text)
    if match is None:
        raise ValueError(f"not a size such as 4096, +1M (more) or -4K (less): {text!r}")
    size = int(match[2]) * SIZE_UNITS[match[3]]
    return {"+": size.__lt__, "-": size.__gt__, "": size.__eq__}[match[1]]


@click.command("find")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=INNER_PATH)
@click.option("--name", metavar="PATTERN", help="Its name matches, such as '*.dll'.")
@click.option("--path", "inner", metavar="PATTERN", help="Its path from the root matches; * stands for slashes too.")
@click.option("--type", "kind", type=click.Choice(["file", "directory", "link"]), help="It is one of these.")
@click.option(
    "--size", metavar="[+-]SIZE", type=_Parsed("size", _size_test), help="More (+), less (-) or so many bytes."
)
@click.option(
    "--newer", metavar="TIME", type=_Parsed("time", filetime_from_text), help="Last written after TIME (UTC)."
)
@click.option(
    "--older", metavar="TIME", type=_Parsed("time", filetime_from_text), help="Last written before TIME (UTC)."
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    type=click.Choice(list(_ATTRIBUTE_BITS)),
    help="It has the attribute. Repeatable.",
)
@click.option(
    "--owner", metavar="SID", type=_Parsed("SID", short_sid), help="Its owner: a SID, or an alias of SDDL such as BA."
)
@click.option("long", "-l", is_flag=True, help="Show attributes, size, last write time (UTC) and link targets.")
@size_options(human=False)
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per entry, one per line.")
def command(
    image: str,
    paths: tuple[str, ...],
    name: str | None,
    inner: str | None,
    kind: str | None,
    size: Callable[[int], bool] | None,
    newer: int | None,
    older: int | None,
    attributes: tuple[str, ...],
    owner: str | None,
    long: bool,
    human: bool,
    as_json: bool,
) -> None:
    """Find files in a CIM by name, size, time, attribute or owner.

    Lists everything below each PATH, a path or a pattern, for which all conditions hold. Case is ignored. SIZE may
    have a suffix K, M, G or T; directories have none. Prints nothing, with exit code 0, if nothing is found.
    """
    output = Output()
    with open_image(image) as reader:
        tests = _tests(reader, name, inner, kind, size, newer, older, attributes, owner)
        for top, top_entry in list(select(reader, paths or [""])):
            for path, entry in reader.walk(top) if top_entry.is_directory else [(top, top_entry)]:
                if not all(test(path, entry) for test in tests):
                    continue
                if as_json:
                    output.json(entry_record(reader, path, entry))
                elif long:
                    output.line(*long_line(reader, shown(path), entry, human))
                else:
                    output.line(name_part(shown(path), entry))


def _tests(
    image: ImageReader,
    name: str | None,
    path: str | None,
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
    if name is not None:
        name_matches = name_matcher(name)
        tests.append(lambda _path, entry: name_matches(entry.name))
    if path is not None:
        path_matches = name_matcher(path.replace("/", "\\"))
        tests.append(lambda inner, _entry: path_matches(inner))
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
