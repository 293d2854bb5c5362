"""Output that the commands share."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cimfs_ext.entries import ImageEntry
from cimlayer.formats.fileinfo import ATTRIBUTES

_SHOWN_BYTES = 32
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def escaped(text: str) -> str:
    """The text with all unprintable characters, which a terminal may act on, as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Output:
    """Standard output, line by line.

    Names are untrusted: a terminal gets them escaped. A pipe gets them unchanged, except for characters that the
    encoding lacks, such as lone surrogates, which are always escaped.
    """

    def __init__(self) -> None:
        self._stream = sys.stdout
        self._terminal = self._stream.isatty()
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

    def line(self, text: str = "") -> None:
        """One line; a line break inside it is not treated specially."""
        self._stream.write((escaped(text) if self._terminal else text) + "\n")

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
        """One JSON value in one line, in ASCII."""
        self._stream.write(json.dumps(value) + "\n")


def mode(attributes: int) -> str:
    """Attributes as a column of letters."""
    bits = int(attributes)  # & of an IntFlag takes long
    return "".join(letter if bits & bit else "-" for bit, letter, _ in ATTRIBUTES)


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
