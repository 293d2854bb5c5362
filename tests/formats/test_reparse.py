"""Reparse buffers and EA lists, taken apart."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimlayer.errors import FormatError
from cimlayer.formats.extattributes import NEED_EA, ExtendedAttribute, parse_extended_attributes
from cimlayer.formats.reparse import (
    LINUX_SYMBOLIC_LINK,
    MOUNT_POINT,
    SYMBOLIC_LINK,
    parse_reparse_data,
)


def link(tag: int, substitute: str, shown: str, flags: int = 0) -> bytes:
    first, second = substitute.encode("utf-16-le"), shown.encode("utf-16-le")
    body = struct.pack("<4H", 0, len(first), len(first) + 2, len(second))
    body += struct.pack("<I", flags) if tag == SYMBOLIC_LINK else b""
    body += first + b"\0\0" + second + b"\0\0"
    return struct.pack("<IHH", tag, len(body), 0) + body


def attribute(name: bytes, value: bytes, flags: int = 0, *, last: bool = False) -> bytes:
    entry = struct.pack("<IBBH", 0, flags, len(name), len(value)) + name + b"\0" + value
    entry += bytes(-len(entry) % 4)
    return entry if last else struct.pack("<I", len(entry)) + entry[4:]


@pytest.mark.parametrize(
    ("buffer", "kind", "target", "relative"),
    [
        (link(SYMBOLIC_LINK, "..\\a", "..\\a", 1), "symbolic link", "..\\a", True),
        (link(SYMBOLIC_LINK, "\\??\\C:\\a", "C:\\a"), "symbolic link", "C:\\a", False),
        (link(SYMBOLIC_LINK, "\\??\\C:\\a", ""), "symbolic link", "C:\\a", False),
        (link(MOUNT_POINT, "\\??\\C:\\a", ""), "mount point", "C:\\a", False),
        (link(MOUNT_POINT, "\\??\\UNC\\host\\a", ""), "mount point", "\\\\host\\a", False),
        (link(MOUNT_POINT, "\\??\\Volume{1}\\", ""), "mount point", "\\\\?\\Volume{1}\\", False),
        (link(MOUNT_POINT, "\\??\\C:\\日本", "C:\\日本"), "mount point", "C:\\日本", False),
        (
            struct.pack("<IHHI", LINUX_SYMBOLIC_LINK, 8, 0, 2) + b"a/b\xff",
            "Linux symbolic link",
            "a/b\\xff",
            True,
        ),
        (struct.pack("<IHH", 0x80000017, 3, 0) + b"abc", "file in a WIM", None, False),
        (struct.pack("<IHH", 0x1234, 3, 0) + bytes(16) + b"abc", "reparse point 0x00001234", None, False),
    ],
)
def test_reparse_buffers(buffer: bytes, kind: str, target: str | None, relative: bool) -> None:
    point = parse_reparse_data(buffer)
    assert (point.tag_name, point.target, point.relative) == (kind, target, relative)
    if target is None:
        assert point.data == b"abc"


@pytest.mark.parametrize(
    "buffer",
    [
        b"",
        struct.pack("<IHH", SYMBOLIC_LINK, 1, 0),
        struct.pack("<IHH", SYMBOLIC_LINK, 11, 0) + bytes(11),
        struct.pack("<IHH", MOUNT_POINT, 8, 0) + struct.pack("<4H", 0, 2, 0, 0),
        struct.pack("<IHH", MOUNT_POINT, 10, 0) + struct.pack("<4H", 0, 1, 0, 0) + bytes(2),
        struct.pack("<IHH", 0x1234, 4, 0) + bytes(19),
    ],
)
def test_a_reparse_buffer_that_contradicts_itself_is_refused_with_the_offset(buffer: bytes) -> None:
    with pytest.raises(FormatError, match=r"reparse data: .*at offset"):
        parse_reparse_data(buffer)


def test_extended_attributes_keep_their_order_flags_and_values() -> None:
    buffer = attribute(b"B", b"one") + attribute(b"A", b"", NEED_EA) + attribute(b"LAST", bytes(300), last=True)
    assert parse_extended_attributes(buffer) == [
        ExtendedAttribute("B", 0, b"one"),
        ExtendedAttribute("A", NEED_EA, b""),
        ExtendedAttribute("LAST", 0, bytes(300)),
    ]
    assert parse_extended_attributes(b"") == []


@pytest.mark.parametrize(
    ("buffer", "offset"),
    [
        (b"short", 0),
        (attribute(b"NAME", b"value", last=True)[:12], 0),
        (attribute(b"A", b"value"), 16),
        (struct.pack("<I", 4) + attribute(b"A", b"value", last=True)[4:], 0),
    ],
)
def test_an_ea_list_that_contradicts_itself_is_refused_with_the_offset(buffer: bytes, offset: int) -> None:
    with pytest.raises(FormatError, match="extended attributes") as raised:
        parse_extended_attributes(buffer)
    assert raised.value.offset == offset


@given(st.sampled_from([SYMBOLIC_LINK, MOUNT_POINT, LINUX_SYMBOLIC_LINK, 1]), st.binary(max_size=64))
def test_any_bytes_are_decoded_or_refused(tag: int, tail: bytes) -> None:
    for parse in (parse_reparse_data, parse_extended_attributes):
        for buffer in (struct.pack("<I", tag) + tail, struct.pack("<IHH", tag, len(tail), 0) + tail, tail):
            try:
                parse(buffer)
            except FormatError as error:
                assert 0 <= error.offset <= len(buffer)
