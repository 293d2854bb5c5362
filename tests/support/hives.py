"""Hives for tests: the corpus, a builder that shares no code with the product, what other readers see."""

from __future__ import annotations

import functools
import io
import lzma
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dissect.regf import regf
from regipy.registry import NKRecord, RegistryHive

from cimfs_ext.regf import Hive
from support.shared import SHARED_HIVES

NONE = 0xFFFFFFFF
BASE, BIN = 4096, 4096
SEGMENT = 16344

REG_NONE, REG_SZ, REG_EXPAND_SZ, REG_BINARY, REG_DWORD = range(5)

MERGE, TOMBSTONE, SUPERSEDE_LOCAL, SUPERSEDE_TREE = range(4)
INHERIT_CLASS = 0x80

GOOD = (
    "BCD",
    "BigDataHive",
    "EmptyHive",
    "ExtendedASCIIHive",
    "ManySubkeysHive",
    "NTUSER.DAT",
    "NewDirtyHive1.RecoveredHive_Windows10",
    "OffHive",
    "SAM",
    "SECURITY",
    "SOFTWARE_20348",
    "SOFTWARE_26100",
    "SYSTEM_WIN_10_1709",
    "System_Delta",
    "UnicodeHive",
)
DIRTY = {"SECURITY", "SYSTEM_WIN_10_1709"}


@functools.cache
def corpus(name: str) -> bytes:
    """A hive of the shared corpus."""
    path = SHARED_HIVES / f"{name}.xz"
    if not path.exists():
        pytest.skip("the hive corpus is not here")
    return lzma.decompress(path.read_bytes())


@dataclass(slots=True)
class Val:
    """A value to build."""

    name: str
    type: int = REG_SZ
    data: bytes = b""
    tombstone: bool = False


@dataclass(slots=True)
class Node:
    """A key to build, or to compare with."""

    name: str = "ROOT"
    values: list[Val] = field(default_factory=list)
    subkeys: list[Node] = field(default_factory=list)
    class_name: str = ""
    timestamp: int = 0
    security: bytes = b"\1\0\4\x80" + bytes(16)
    layering: int = MERGE
    flags: int = 0


class Builder:
    """Writes hives cell by cell, good and bad ones: ``patch`` changes a cell after the fact."""

    def __init__(
        self, *, minor: int | None = None, leaf: bytes = b"lh", leaf_size: int = 507, layered: bool = False
    ) -> None:
        self.minor = minor if minor is not None else 6 if layered else 5
        self.leaf, self.leaf_size, self.layered = leaf, leaf_size, layered
        self.cells: list[tuple[int, bytearray]] = []
        self.end = 32
        self.keys: dict[str, int] = {}
        self.security: dict[bytes, int] = {}
        self.by_offset: dict[int, bytearray] = {}

    def cell(self, body: bytes) -> int:
        """Append a cell; one big bin holds them all."""
        offset, size = self.end, (len(body) + 4 + 7) // 8 * 8
        padded = bytearray(body.ljust(size - 4, b"\0"))
        self.cells.append((size, padded))
        self.by_offset[offset] = padded
        self.end += size
        return offset

    def patch(self, offset: int, at: int, data: bytes) -> None:
        """Overwrite part of a cell's body."""
        self.by_offset[offset][at : at + len(data)] = data

    def data(self, data: bytes) -> int:
        """A data cell, or a big data record."""
        if len(data) <= SEGMENT or self.minor <= 3:
            return self.cell(data)
        segments = [self.cell(data[i : i + SEGMENT]) for i in range(0, len(data), SEGMENT)]
        listed = self.cell(struct.pack(f"<{len(segments)}I", *segments))
        return self.cell(struct.pack("<2sHI", b"db", len(segments), listed))

    def value(self, value: Val) -> int:
        """A value cell with its data."""
        name, narrow = encode(value.name)
        size, data = len(value.data), NONE
        if value.tombstone:
            size = 0
        elif size <= 4:
            data = int.from_bytes(value.data, "little")
            size |= 1 << 31
        else:
            data = self.data(value.data)
        flags = narrow | value.tombstone << 1
        return self.cell(struct.pack("<2sHIIIHH", b"vk", len(name), size, data, value.type, flags, 0) + name)

    def list_of(self, offsets: list[int]) -> int:
        """One leaf list. The hashes and hints are wrong on purpose: readers have no use for them."""
        wide = self.leaf != b"li"
        entries = b"".join(struct.pack("<II", o, 0) if wide else struct.pack("<I", o) for o in offsets)
        return self.cell(struct.pack("<2sH", self.leaf, len(offsets)) + entries)

    def subkeys(self, offsets: list[int]) -> int:
        """The list, or the list of lists, of a key."""
        if not offsets:
            return NONE
        leaves = [self.list_of(offsets[i : i + self.leaf_size]) for i in range(0, len(offsets), self.leaf_size)]
        if len(leaves) == 1:
            return leaves[0]
        return self.cell(struct.pack(f"<2sH{len(leaves)}I", b"ri", len(leaves), *leaves))

    def key(self, node: Node, path: str = "") -> int:
        """A key with all below it; ``keys`` remembers where it went by its path."""
        name, narrow = encode(node.name)
        if node.security not in self.security:
            sk = struct.pack("<2sHIIII", b"sk", 0, 0, 0, 0, len(node.security)) + node.security
            self.security[node.security] = self.cell(sk)
        class_bytes = node.class_name.encode("utf-16-le")
        class_cell = self.cell(class_bytes) if class_bytes else NONE
        values = [self.value(value) for value in node.values]
        value_list = self.cell(struct.pack(f"<{len(values)}I", *values)) if values else NONE
        prefix = f"{path}\\" if path else ""
        children = [
            self.key(child, prefix + child.name) for child in sorted(node.subkeys, key=lambda child: child.name.upper())
        ]
        flags = node.flags | narrow << 5 | (0 if path else 0x0C)
        body = struct.pack("<2sHQBBxx", b"nk", flags, node.timestamp, 0, node.layering)
        body += struct.pack("<IIIII", 0, len(children), 0, self.subkeys(children), NONE)
        body += struct.pack("<IIII", len(values), value_list, self.security[node.security], class_cell)
        body += struct.pack("<IIIIIHH", 0, 0, 0, 0, 0, len(name), len(class_bytes)) + name
        self.keys[path] = self.cell(body)
        return self.keys[path]

    def file(self, root: int, *, sequences: tuple[int, int] = (7, 7), timestamp: int = 0) -> bytes:
        """The file with the cells so far."""
        end = (self.end + BIN - 1) // BIN * BIN
        gap = end - self.end
        free = struct.pack("<i", gap)[:gap].ljust(gap, b"\0")
        used = b"".join(struct.pack("<i", -size) + body for size, body in self.cells)
        header = struct.pack("<4sIIQIIIIIII", b"regf", *sequences, timestamp, 1, self.minor, 0, 1, root, end, 1)
        header = bytearray(header.ljust(BASE, b"\0"))
        struct.pack_into("<I", header, 144, 2 if self.layered else 0)
        return with_checksum(header + struct.pack("<4sII20x", b"hbin", 0, end) + used + free)


def build(root: Node, *, sequences: tuple[int, int] = (7, 7), timestamp: int = 0, **layout: object) -> bytes:
    """A hive with that tree; ``layout`` as for Builder."""
    builder = Builder(**layout)  # type: ignore[arg-type]
    return builder.file(builder.key(root), sequences=sequences, timestamp=timestamp)


def with_checksum(file: bytes) -> bytes:
    """The hive with the checksum of its base block made right."""
    fixed, checksum = bytearray(file), 0
    for (word,) in struct.iter_unpack("<I", file[:508]):
        checksum ^= word
    struct.pack_into("<I", fixed, 508, {0: 1, NONE: NONE - 1}.get(checksum, checksum))
    return bytes(fixed)


def marvin32(data: bytes) -> bytes:
    """The hash that protects entries of transaction logs."""

    def rotated(value: int, by: int) -> int:
        return (value << by | value >> (32 - by)) & NONE

    low, high = struct.unpack("<II", bytes.fromhex("C5554E7A884DEF82"))
    padded = data + b"\x80" + bytes(3 - len(data) % 4)
    for word in (*(word for (word,) in struct.iter_unpack("<I", padded)), 0):
        low = (low + word) & NONE
        high ^= low
        low = (rotated(low, 20) + high) & NONE
        high = rotated(high, 9) ^ low
        low = (rotated(low, 27) + high) & NONE
        high = rotated(high, 19)
    return struct.pack("<II", low, high)


def new_log(base: bytes, first: int, entries: list[tuple[int, bytes]]) -> bytes:
    """A log of the new kind that begins with number ``first``; each entry has the first page of a hive."""
    header = bytearray(base[:512])
    struct.pack_into("<II", header, 4, first, first)
    struct.pack_into("<I", header, 28, 6)
    log = with_checksum(header)
    for sequence, changed in entries:
        pages = struct.pack("<II", 0, 4096) + changed[4096:8192]
        size = (40 + len(pages) + 511) // 512 * 512
        body = pages.ljust(size - 40, b"\0")
        fields = struct.pack("<4sIIIII", b"HvLE", size, 0, sequence, len(base) - 4096, 1) + marvin32(body)
        log += fields + marvin32(fields) + body
    return log


def encode(name: str) -> tuple[bytes, bool]:
    """A name as hives store it, and whether that is Latin-1."""
    try:
        return name.encode("latin-1"), True
    except UnicodeEncodeError:
        return name.encode("utf-16-le"), False


Tree = dict[str, tuple[str, int, dict[str, tuple[int, bytes]]]]
"""Key path: class name, time, values as name: (type, data)."""


def our_tree(hive: Hive) -> Tree:
    """What the product sees."""
    return {
        key.path: (key.class_name, key.timestamp, {v.name: (v.type, v.data) for v in key.values()})
        for key in hive.walk()
    }


def dissect_tree(data: bytes) -> Tree:
    """What dissect.regf sees."""
    tree: Tree = {}

    def visit(key: regf.KeyNode, path: str) -> None:
        values = {}
        for value in key.values():
            name = "" if value.cell.NameLength == 0 else value.name
            values[name] = (value.type, value.data if value.size else b"")
        tree[path] = (key.class_name or "", key.cell.LastWriteTime, values)
        for subkey in key.subkeys():
            visit(subkey, f"{path}\\{subkey.name}" if path else subkey.name)

    visit(regf.RegistryHive(io.BytesIO(data)).root(), "")
    return tree


def regipy_keys(data: bytes) -> list[tuple[str, int, int]]:
    """What regipy sees: path, time and number of values of each key."""
    keys = []

    def visit(key: NKRecord, path: str) -> None:
        keys.append((path, key.header.last_modified, key.values_count))
        for subkey in key.iter_subkeys():
            visit(subkey, f"{path}\\{subkey.name}" if path else subkey.name)

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "hive")
        file.write_bytes(data)
        visit(RegistryHive(str(file)).root, "")
    return keys


def hivexsh(data: bytes, paths: Iterable[str]) -> str:
    """What hivexsh lists as the subkeys and values of each key."""
    program = shutil.which("hivexsh")
    if program is None:
        pytest.skip("hivexsh is not installed")
    commands = "".join(f"cd \\{path}\nls\nlsval\n" for path in paths)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        run = subprocess.run(
            [program, file.name], input=commands.encode(), capture_output=True, check=False, timeout=120
        )
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout.decode("utf-8", "surrogateescape")
