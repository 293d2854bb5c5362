"""What a server asks for when it answers 401: the header WWW-Authenticate (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_SCHEME = re.compile(rf"({_TOKEN})(?:\s+([A-Za-z0-9._~+/-]+=*)(?=\s*(?:,|$)))?")  # perhaps with a token68
_SEPARATOR = re.compile(r"[\s,]*")


@dataclass(slots=True, frozen=True)
class Challenge:
    """One scheme, in lower case, with its parameters, whose names are too."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all headers, in order; whatever is malformed ends its header."""
    found: list[Challenge] = []
    for header in headers:
        at = _end(_SEPARATOR, header, 0)
        while at < len(header):
            parameter = _PARAMETER.match(header, at)
            if parameter is not None and found:
                name, quoted, plain = parameter.groups()
                value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                found[-1].parameters.setdefault(name.lower(), value)
            else:
                parameter = _SCHEME.match(header, at)
                if parameter is None:
                    break
                found.append(Challenge(parameter[1].lower(), {}))
            at = _end(_SEPARATOR, header, parameter.end())
    return found


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()
