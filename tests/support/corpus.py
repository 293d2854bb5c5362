"""The layer corpus: its layers' parents, and the manifests of the trees that they must give."""

from __future__ import annotations

import json
from typing import Any

from support.shared import SHARED_LAYERS

KEPT_ATTRIBUTES = 0x1 | 0x2 | 0x4 | 0x10 | 0x20 | 0x200 | 0x400
PARENTS: dict[str, list[str]] = {
    "base": [],
    "edge": ["base"],
    "child": ["base"],
    "grandchild": ["child", "base"],
    "greatgrandchild": ["grandchild", "child", "base"],
    "uvm-base": [],
    "uvm-2022": [],
}


def manifest_of(name: str) -> dict[str, Any]:
    return json.loads((SHARED_LAYERS / f"{name}.manifest.json").read_text("utf-8"))


def is_managed(path: str, rules: list[str]) -> bool:
    folded = path.casefold()
    for rule in rules:
        head, brace, rest = rule.casefold().partition("{")
        if brace:
            names, _, tail = rest.partition("}")
            if any(folded == head + name + tail for name in names.split(",")):
                return True
        elif folded == head or (head.endswith("\\*") and folded.startswith(head[:-1])):
            return True
    return False


def eas_of(data: bytes) -> dict[str, str]:
    """The names and values of an EA list, decoded by the test itself."""
    found = {}
    at = 0
    while data:
        following = int.from_bytes(data[at : at + 4], "little")
        name_length, value_length = data[at + 5], int.from_bytes(data[at + 6 : at + 8], "little")
        name = data[at + 8 : at + 8 + name_length].decode()
        found[name] = data[at + 9 + name_length : at + 9 + name_length + value_length].hex()
        if not following:
            return found
        at += following
    return found
