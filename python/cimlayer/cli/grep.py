"""``cimlayer grep``."""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import click

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.innerpaths import INNER_PATH
from cimlayer.cli.output import Output
from cimlayer.cli.parsing import Parsed, one_pattern
from cimlayer.image.entrynames import shown
from cimlayer.image.patterns import Patterns
from cimlayer.image.selection import Found, each_named

_PIECE = 1 << 20
_LONGEST_LINE = 16 << 20  # bytes; a longer one is searched in pieces
_BINARY = 1 << 15  # so many bytes at its beginning say whether a file is text
_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_OF_ONE_LINE = re.compile(rb"\$|\\[AZ]|\(\?")  # in an expression: may mean something else in several lines


@dataclass(slots=True, frozen=True)
class _Line:
    """A line that matches, without its end, and where in it; None for a binary file."""

    number: int
    text: bytes
    start: int
    end: int


@click.command("grep")
@click.argument("pattern", metavar="PATTERN")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=INNER_PATH)
@click.option("-i", "--ignore-case", is_flag=True, help="Ignore the case of ASCII letters.")
@click.option("-F", "--fixed-strings", is_flag=True, help="PATTERN is text, not a regular expression.")
@click.option("-n", "--line-number", is_flag=True, help="Show the number of each line.")
@click.option("-l", "--files-with-matches", "only_names", is_flag=True, help="Show only the paths of the files.")
@click.option("-a", "--text", "as_text", is_flag=True, help="Show the lines of binary files, too.")
@click.option(
    "--include",
    metavar="PATTERN",
    type=Parsed("pattern", one_pattern),
    help="Search only files that match, such as '*.ini'.",
)
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per line that matches.")
@click.pass_context
def command(
    ctx: click.Context,
    pattern: str,
    image: str,
    paths: tuple[str, ...],
    ignore_case: bool,
    fixed_strings: bool,
    line_number: bool,
    only_names: bool,
    as_text: bool,
    include: Patterns | None,
    as_json: bool,
) -> None:
    """Search the contents of files in a CIM.

    PATTERN is a regular expression as Python has them, in UTF-8. It is searched for in each line of each file below
    PATH, a path or a pattern, or in the whole CIM. Files with a UTF-16 byte order mark are text; of other files with
    null bytes only the path is shown. Alternate streams are not searched. Exit code 1 if nothing is found.
    """
    expression = _compiled(pattern, fixed_strings, ignore_case)
    output = Output()
    found = False
    with open_image(image) as reader:
        for path, entry in _files(reader, paths or ("",), include):
            for line in _search(expression, reader, entry, as_text):
                found = True
                _print(output, shown(path), None if only_names else line, line_number, only_names, as_json)
                if only_names:
                    break
    if not found:
        ctx.exit(1)


def _compiled(pattern: str, fixed: bool, ignore_case: bool) -> re.Pattern[bytes]:
    expression = pattern.encode("utf-8", "surrogateescape")
    flags = re.MULTILINE | (re.IGNORECASE if ignore_case else 0)
    try:
        return re.compile(re.escape(expression) if fixed else expression, flags)
    except re.error as error:
        raise click.BadParameter(f"{error}.", param_hint="PATTERN") from error


def _files(image: ImageReader, paths: tuple[str, ...], include: Patterns | None) -> Iterator[Found]:
    for top, top_entry in list(each_named(image, paths)):
        for path, entry in image.walk(top) if top_entry.is_directory else [(top, top_entry)]:
            if not entry.is_directory and (include is None or include.match(path, False)):
                yield path, entry


def _search(
    expression: re.Pattern[bytes], image: ImageReader, entry: ImageEntry, as_text: bool
) -> Iterator[_Line | None]:
    """The lines that match; None, once, for a binary file."""
    with image.open(entry) as content:
        beginning = content.read(_BINARY)
        encoding = _UTF16.get(beginning[:2])
        pieces = itertools.chain([beginning], iter(lambda: content.read(_PIECE), b""))
        for line in _matching_lines(expression, pieces if encoding is None else _as_utf8(pieces, encoding)):
            if encoding is None and b"\0" in beginning and not as_text:
                yield None
                return
            yield line


def _as_utf8(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Text in another encoding, without its byte order mark."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for number, piece in enumerate(pieces):
        text = decoder.decode(piece)
        yield (text if number else text[1:]).encode("utf-8", "replace")


def _matching_lines(expression: re.Pattern[bytes], pieces: Iterable[bytes]) -> Iterator[_Line]:
    number = 1
    rest = b""
    for piece in itertools.chain(pieces, [b""]):
        block = rest + piece
        end = block.rfind(b"\n") + 1
        if not piece or (not end and len(block) >= _LONGEST_LINE):
            end = len(block)
        yield from _matching_lines_of(expression, block[:end], number)
        number += block.count(b"\n", 0, end)
        rest = block[end:]


def _matching_lines_of(expression: re.Pattern[bytes], block: bytes, number: int) -> Iterator[_Line]:
    """In whole lines; looking at all of them at once is faster, and most blocks have no match."""
    if not block or not (_OF_ONE_LINE.search(expression.pattern) or expression.search(block)):
        return
    for line in block.removesuffix(b"\n").split(b"\n"):
        text = line.removesuffix(b"\r")
        found = expression.search(text)
        if found is not None:
            yield _Line(number, text, *found.span())
        number += 1


def _print(output: Output, path: str, line: _Line | None, with_number: bool, only_names: bool, as_json: bool) -> None:
    """A line, or a file whose lines are not to be shown."""
    if as_json:
        record: dict[str, object] = {"path": path, "line": None, "text": None}
        if line is not None:
            record |= {"line": line.number, "text": line.text.decode("utf-8", "replace")}
        output.json(record)
    elif line is None:
        output.line((path, "place"), "" if only_names else ": binary file matches")
    else:
        before, match, after = line.text[: line.start], line.text[line.start : line.end], line.text[line.end :]
        number = f":{line.number}" if with_number else ""
        output.line((path, "place"), f"{number}:", _decoded(before), (_decoded(match), "match"), _decoded(after))


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")
