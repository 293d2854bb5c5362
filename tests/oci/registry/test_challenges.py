"""Challenges of servers that want credentials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimlayer.oci.registry.challenges import Challenge, parse_challenges
from support.platforms import same_everywhere

pytestmark = same_everywhere

BASIC, BEARER = Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "https://t/", "service": "a, b"})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Basic realm="x"'], [BASIC]),
        (["basic realm=x"], [BASIC]),
        (['BEARER realm="https://t/", service="a, b"'], [BEARER]),
        (['Bearer realm="https://t/",service="a, b",Basic realm="x"'], [BEARER, BASIC]),
        (['Basic realm="x"', 'Bearer Realm = "https://t/" , Service="a, b"'], [BASIC, BEARER]),
        (['Negotiate, Basic realm="x"'], [Challenge("negotiate", {}), BASIC]),
        (['NTLM TlRMTVNTUAAC==, Basic realm="x"'], [Challenge("ntlm", {}), BASIC]),
        (['Basic realm="a\\"b"'], [Challenge("basic", {"realm": 'a"b'})]),
        (['Basic realm="x", realm="y"'], [BASIC]),
        (['Basic realm="unfinished'], [Challenge("basic", {}), Challenge("realm", {})]),
        (["", " , ", "\x00"], []),
    ],
)
def test_all_challenges_of_all_headers_are_found(headers: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(headers) == expected


@given(st.lists(st.text(max_size=60), max_size=3))
def test_whatever_a_server_says_ends(headers: list[str]) -> None:
    assert all(each.scheme for each in parse_challenges(headers))


@given(st.dictionaries(st.from_regex("[a-z]{1,9}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_quoted_values_are_given_back(parameters: dict[str, str]) -> None:
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in parameters.values())
    text = ", ".join(f'{name}="{value}"' for name, value in zip(parameters, quoted, strict=True))
    assert parse_challenges([f"Bearer {text}"]) == [Challenge("bearer", parameters)]
