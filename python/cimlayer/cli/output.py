"""Output that the commands share."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from cimfs_ext.entries import ImageEntry

# In the context of a call: options that all commands have, and the directory that layers are made in.
COLOR, QUIET, VERBOSE, LAYERS = "cimlayer.color", "cimlayer.quiet", "cimlayer.verbose", "cimlayer.layers"

_SHOWN_BYTES = 32
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_LARGEST_EXACT = 2**53 - 1  # in the numbers of JavaScript, jq and most other readers of JSON
_STYLES = {
    "directory": "1;34",
    "link": "36",
    "added": "32",
    "removed": "31",
    "changed": "33",
    "match": "1;31",
    "place": "35",
    "error": "1;31",
}

Part = str | tuple[str, str]  # plain text, or text and the name of its style


def escaped(text: str) -> str:
    """The text with all unprintable characters, which a terminal may act on, as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def colored(stream: TextIO) -> bool:
    """Whether a stream gets colours: as --color says, by default a terminal, unless NO_COLOR (no-color.org) is set."""
    when = of_call(COLOR, "auto")
    if when != "auto":
        return when == "always"
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def of_call(name: str, default: str = "") -> str:
    """What the context of a call has under one of these names."""
    context = click.get_current_context(silent=True)
    return default if context is None else context.meta.get(name, default)


def painted(text: str, style: str) -> str:
    """Text between the sequences that switch a style on and off."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if text else ""


def warn(text: str) -> None:
    """A warning on standard error, unless --quiet was given."""
    if not of_call(QUIET):
        click.echo(f"cimlayer: warning: {escaped(text)}", err=True)


class Output:
    """Standard output, line by line.

    Names are untrusted: a terminal gets them escaped. A pipe gets them unchanged, except for characters that the
    encoding lacks, such as lone surrogates, which are always escaped.
    """

    def __init__(self, before_line: Callable[[], None] | None = None) -> None:
        """``before_line`` makes room for a line where progress is shown on the same terminal."""
        self._stream = sys.stdout
        self._colored = colored(self._stream)
        self.escapes = self._colored or self._stream.isatty()  # whether `shown` changes anything
        self._before_line = before_line if self._stream.isatty() else None
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(errors="backslashreplace")

    @contextmanager
    def after(self, done: str) -> Iterator[None]:
        """For the summary of what is done: where it cannot be written, the error says so."""
        try:
            yield
            self._stream.flush()
        except BrokenPipeError:
            raise  # whoever closes a pipe knows that it misses something
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} ({done})", "standard output") from error

    def line(self, *parts: Part) -> None:
        """One line; a line break inside it is not treated specially."""
        if self._before_line is not None:
            self._before_line()
        texts = (self.shown(part) if isinstance(part, str) else self.shown(*part) for part in parts)
        self._stream.write("".join(texts) + "\n")

    def shown(self, text: str, style: str = "") -> str:
        """A part of a line as it is written."""
        text = escaped(text) if self.escapes else text
        return painted(text, style) if style and self._colored else text

    def written(self, lines: str) -> None:
        """Whole lines, in which names are shown already."""
        self._stream.write(lines)

    def text(self, text: str) -> None:
        """Several lines."""
        for line in text.split("\n"):
            self.line(line)

    def fields(self, fields: Mapping[str, str]) -> None:
        """Names and values in two columns."""
        width = max(map(len, fields), default=0) + 2
        for name, value in fields.items():
            self.line(f"{name:<{width}}{value}".rstrip(" "))

    def json(self, value: object) -> None:
        """One JSON value in one line, in ASCII; integers that other readers would round are strings."""
        self._stream.write(json_text(value) + "\n")


def json_text(value: object) -> str:
    """A value as JSON in one line, in ASCII. Integers beyond 2^53 are strings of digits, but for a ``filetime``.

    That is always beyond it, and stands beside the same time as text.
    """
    import json  # noqa: PLC0415  which takes its time to load

    text = json.dumps(value)
    return json.dumps(_exact(value)) if re.search("[0-9]{16}", text) else text


def _exact(value: object) -> object:
    if isinstance(value, dict):
        return {name: member if name == "filetime" else _exact(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_exact(element) for element in value]
    is_large = isinstance(value, int) and not -_LARGEST_EXACT <= value <= _LARGEST_EXACT
    return str(value) if is_large else value


def type_of(entry: ImageEntry) -> str:
    """``directory`` or ``file``."""
    return "directory" if entry.is_directory else "file"


def amount(size: float) -> str:
    """A number of bytes, for people."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return counted(int(size), "byte") if unit == "bytes" else f"{size:.1f} {unit}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun, such as ``1 file`` and ``2 files``; ``plural`` is for nouns that take more than an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def bytes_text(data: bytes) -> str:
    """The beginning of a buffer: quoted if it is text, otherwise in hexadecimal."""
    more = f" ... ({len(data)} bytes)" if len(data) > _SHOWN_BYTES else ""
    piece = data[:_SHOWN_BYTES]
    if piece and piece.isascii() and piece.decode().isprintable():
        return f'"{piece.decode()}"{more}'
    return piece.hex(" ") + more
