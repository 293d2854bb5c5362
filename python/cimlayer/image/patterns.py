"""Patterns that choose entries by their paths, as gitignore(5) has them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

# Compiled when they are first needed, which takes as long as a small image to be listed.
_CLASS = r"\[([!^]?)(\]?[^]/]*)\]"
_TOKEN = r"(?s)/\*\*$|(?:^|/)\*\*/|\*+|\?|\[[!^]?\]?[^]/]*\]|."


def has_wildcards(text: str) -> bool:
    """Whether a text is a pattern rather than a path."""
    return not {"*", "?", "["}.isdisjoint(text)


def read_patterns(path: str | os.PathLike[str]) -> list[str]:
    """The patterns of a file in UTF-8, one a line; empty lines and those that begin with ``#`` are none."""
    with open(path, encoding="utf-8-sig") as file:
        lines = file.read().splitlines()
    return [line.rstrip() for line in lines if line.strip() and not line.startswith("#")]


class Patterns:
    """A list of patterns of which the last that matches decides.

    ``*`` and ``?`` match anything but a separator, ``[a-z]`` and ``[!a-z]`` one character, ``**`` any directories. A
    pattern without a separator, other than at its end, is about names at any depth, any other about paths from the root
    on. One that ends with a separator matches only directories; one that begins with ``!`` takes back what others
    before it match. Slashes and backslashes are separators, case is ignored. ValueError for a malformed one.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._rules = [_rule(pattern) for pattern in patterns]

    def __bool__(self) -> bool:
        """Whether there are any patterns."""
        return bool(self._rules)

    def match(self, path: str, is_directory: bool) -> bool:
        """Whether they choose a path, without regard to those above it."""
        text = path.replace("\\", "/")
        for regex, only_directories, chosen in reversed(self._rules):
            if (is_directory or not only_directories) and regex.fullmatch(text):
                return chosen
        return False

    def cover(self, path: str, is_directory: bool) -> bool:
        """Whether they choose a path, or a directory above it."""
        if not self._rules:
            return False
        ends = [at for at, unit in enumerate(path) if unit in "/\\"]
        return any(self.match(path[:end], True) for end in ends) or self.match(path, is_directory)


def _rule(pattern: str) -> tuple[re.Pattern[str], bool, bool]:
    """The expression of a pattern, whether it is about directories alone, and whether it chooses or takes back."""
    chosen = not pattern.startswith("!")
    text = pattern[not chosen :].replace("\\", "/")
    only_directories = text.endswith("/")
    text = text.rstrip("/")
    anchored = "/" in text
    text = text.lstrip("/")
    if not text:
        raise ValueError(f"not a pattern: {pattern!r}")
    expression = "" if anchored else "(?:.*/)?"
    try:
        return (
            re.compile(expression + "".join(map(_expression, re.findall(_TOKEN, text))), re.IGNORECASE | re.DOTALL),
            only_directories,
            chosen,
        )
    except re.error as error:
        raise ValueError(f"not a pattern: {pattern!r} ({error})") from error


def _expression(token: str) -> str:
    if token == "/**":
        return "/.*"
    if token.endswith("**/"):
        return "(?:.*/)?" if token == "**/" else "/(?:.*/)?"
    if token.startswith("*"):
        return "[^/]*"
    if token == "?":
        return "[^/]"
    found = re.fullmatch(_CLASS, token)
    if found is None:
        return re.escape(token)
    characters = "".join(f"\\{unit}" if unit in "\\[]^&~|" else unit for unit in found[2])
    return f"[^/{characters}]" if found[1] else f"(?!/)[{characters}]"
