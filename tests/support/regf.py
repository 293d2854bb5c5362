"""What the tests of Hives share."""

from __future__ import annotations

import pytest

from cimfs_ext.errors import DirtyHiveWarning
from cimfs_ext.regf import Hive
from support import hives
from support.hives import REG_BINARY, REG_DWORD, REG_SZ, Node, Val, corpus


def opened(name: str) -> Hive:
    if name not in hives.DIRTY:
        return Hive.open(corpus(name), name=name)
    with pytest.warns(DirtyHiveWarning, match=name):
        return Hive.open(corpus(name), name=name)


SAMPLE = Node(
    timestamp=131_000_000_000_000_000,
    class_name="of the root",
    values=[
        Val("", REG_SZ, "default\0".encode("utf-16-le")),
        Val("naïve", REG_DWORD, b"\1\0\0\0"),
        Val("Привет", REG_BINARY, b"\1\2\3"),
        Val("empty", REG_BINARY),
        Val("five", REG_BINARY, b"12345"),
        Val("edge", REG_BINARY, bytes(range(256)) * 63 + bytes(16344 - 63 * 256)),
        Val("big", REG_BINARY, bytes(range(251)) * 66),
        Val("bigger", REG_BINARY, bytes(range(241)) * 300),
    ],
    subkeys=[
        Node(
            "Ключ",
            timestamp=5,
            security=b"\1\0\4\x80" + b"\1" * 16,
            subkeys=[Node("a"), Node("B"), Node("_")],
        ),
        *(Node(f"k{i}", timestamp=i, class_name="c" * (i % 3)) for i in range(40)),
        Node("ëigenaardig", flags=0x10, subkeys=[Node("deep", subkeys=[Node("deeper", [Val("x")])])]),
    ],
)
