"""Layers for tests: what goes into them, what they leave on the disk, and a model of what an import means."""

from __future__ import annotations

import base64
import io
import struct
import tarfile
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from cimfs_ext.names import upcase_key
from cimfs_ext.regf import Hive
from cimlayer.layer.standard import HIVES
from support import cimoracle
from support.tars import FILETIME_OF_1970, TarBuilder

TIME = 133_000_000_000_000_000
NULL_DACL = bytes([1, 0, 4, 0x80]) + bytes(16)
REG_SZ, REG_DWORD = 1, 4


def hive(**values: str) -> bytes:
    """A hive whose key `Test` has these strings."""
    made = Hive.empty(TIME)
    made.create_key("Test", TIME)
    for name, text in values.items():
        made.set_value("Test", name, REG_SZ, f"{text}\0".encode("utf-16-le"), TIME)
    return made.to_bytes()


def strings_of(data: bytes) -> dict[str, str]:
    """What `hive` was made with."""
    return {value.name: value.data.decode("utf-16-le").rstrip("\0") for value in Hive.open(data).key("Test").values()}


def base_hives() -> dict[str, bytes]:
    """The five hives of a base layer by their path in a tar."""
    return {entry.path.replace("\\", "/"): hive(who=entry.name) for entry in HIVES}


def add_base_hives(tar: TarBuilder, leave_out: str = "") -> None:
    for path, data in base_hives().items():
        if not path.endswith(f"/{leave_out}"):
            tar.file(path, data)


def snapshot(directory: Path) -> dict[str, tuple[str, bytes]]:
    """Everything below a directory, byte for byte."""
    return {
        path.relative_to(directory).as_posix(): ("directory", b"") if path.is_dir() else ("file", path.read_bytes())
        for path in sorted(directory.rglob("*"))
    }


def image_of(layer: Path) -> dict[str, cimoracle.Entry]:
    """What an independent reader finds in the layer's image."""
    return cimoracle.read_image(layer.parent / "cim-layers", f"{layer.name}.cim")


# ---- a model of the import ----


@dataclass(eq=False)
class Node:
    """A file or directory; hard links are one object under several names."""

    is_directory: bool
    attributes: int
    times: tuple[int, int, int, int]
    sd: bytes = NULL_DACL
    data: bytes = b""
    reparse: bytes = b""
    eas: dict[str, bytes] = field(default_factory=dict)
    streams: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Name:
    path: str
    node: Node


Tree = dict[bytes, Name]


def key_of(path: str) -> bytes:
    return upcase_key(path)


def filetime(text: str) -> int:
    return FILETIME_OF_1970 + int(Decimal(text) * 10**7)


def below(tree: Tree, path: str) -> list[bytes]:
    prefix = upcase_key(path + "\\") if path else b""
    return [key for key in tree if key.startswith(prefix)]


def reparse_of(target: str) -> bytes:
    """The buffer of a relative symbolic link."""
    raw = target.replace("/", "\\").encode("utf-16-le")
    names = raw + b"\0\0" + raw + b"\0\0"
    fields = struct.pack("<HHHHI", 0, len(raw), len(raw) + 2, len(raw), 1)
    return struct.pack("<IHH", 0xA000000C, len(fields) + len(names), 0) + fields + names


class Model:
    """Applies tars one after the other, as the OCI image-spec says, with Python's own reader of tars.

    Whiteouts first: they mean the layers below, wherever they stand.
    """

    def __init__(self) -> None:
        self.tree: Tree = {}
        self.implicit = FILETIME_OF_1970  # the time of directories that no entry describes, if it is reproducible

    def apply(self, tar: bytes) -> int:
        """Returns the sum of the sizes of files."""
        total = 0
        with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as archive:
            members = archive.getmembers()
            for member in members:
                directory, _, leaf = member.name.replace("/", "\\").rpartition("\\")
                if leaf == ".wh..wh..opq":
                    self.remove(below(self.tree, directory))
                elif leaf.startswith(".wh."):
                    path = f"{directory}\\{leaf[4:]}".lstrip("\\")
                    self.remove([key_of(path), *below(self.tree, path)])
            for member in members:
                path = "\\".join(part for part in member.name.split("/") if part not in ("", "."))
                if not path or path.rpartition("\\")[2].startswith(".wh."):
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                total += self.add(path, member, content.read() if content else b"")
        return total

    def remove(self, keys: list[bytes]) -> None:
        for key in keys:
            self.tree.pop(key, None)

    def add(self, path: str, member: tarfile.TarInfo, data: bytes) -> int:
        owner, colon, stream = path.partition(":")
        if colon:
            self.tree[key_of(owner)].node.streams[stream.removesuffix(":$DATA")] = data
            return 0
        self.make_parents(path)
        if member.islnk():
            target = self.tree[key_of(member.linkname.replace("/", "\\"))].node
            self.put(path, target)
            return 0
        node = node_of(member, data)
        old = self.tree.get(key_of(path))
        if old is not None and old.node.is_directory and node.is_directory:
            node.streams = old.node.streams
            old.node = node
        else:
            self.put(path, node)
        return len(data)

    def put(self, path: str, node: Node) -> None:
        self.remove(below(self.tree, path))
        parent, _, name = path.rpartition("\\")
        if parent:
            parent = self.tree[key_of(parent)].path + "\\"
        self.tree[key_of(path)] = Name(parent + name, node)

    def make_parents(self, path: str) -> None:
        parent = path.rpartition("\\")[0]
        if not parent:
            return
        known = self.tree.get(key_of(parent))
        if known is None or not known.node.is_directory:
            self.make_parents(parent)
            self.put(parent, Node(True, 0x10, (self.implicit,) * 4))


def node_of(member: tarfile.TarInfo, data: bytes) -> Node:
    """What an entry says of its file (go-winio, backuptar/tar.go)."""
    records = {key: value for key, value in member.pax_headers.items() if value != ""}
    write = filetime(records["mtime"]) if "mtime" in records else filetime(str(int(member.mtime)))

    def time(key: str) -> int:
        return filetime(records[key]) if key in records else write

    attributes = int(records.get("MSWINDOWS.fileattr", 0x10 if member.isdir() else 0x20)) & ~0x410
    is_directory = member.isdir() or (member.issym() and bool(int(records.get("MSWINDOWS.fileattr", 0)) & 0x10))
    prefix = "MSWINDOWS.xattr."
    eas = {
        key.removeprefix(prefix): base64.b64decode(value) for key, value in records.items() if key.startswith(prefix)
    }
    return Node(
        is_directory,
        attributes | 0x10 * is_directory | 0x400 * member.issym(),
        (time("LIBARCHIVE.creationtime"), write, time("ctime"), time("atime")),
        base64.b64decode(records["MSWINDOWS.rawsd"]) if "MSWINDOWS.rawsd" in records else NULL_DACL,
        data,
        reparse_of(member.linkname) if member.issym() else b"",
        eas,
    )


def differences(model: Model, image: dict[str, cimoracle.Entry], ignored: tuple[str, ...] = ()) -> list[str]:
    """How an image differs from the model, outside the trees below `ignored`."""
    found = []
    heads = {upcase_key(head) for head in ignored}

    def counts(path: str) -> bool:
        return bool(path) and upcase_key(path.partition("\\")[0]) not in heads

    expected = {name.path: name.node for name in model.tree.values() if counts(name.path)}
    there = {path: entry for path, entry in image.items() if counts(path)}
    found += [f"missing: {path}" for path in expected.keys() - there.keys()]
    found += [f"too much: {path}" for path in there.keys() - expected.keys()]
    groups: dict[int, set[str]] = {}
    for path in expected.keys() & there.keys():
        node, entry = expected[path], there[path]
        groups.setdefault(id(node), set()).add(path)
        pairs = {
            "directory": (node.is_directory, entry.is_directory),
            "attributes": (node.attributes, entry.attributes),
            "times": (
                node.times,
                (entry.creation_time, entry.last_write_time, entry.change_time, entry.last_access_time),
            ),
            "descriptor": (node.sd, entry.sd),
            "data": (node.data, entry.data),
            "reparse": (node.reparse, entry.reparse),
            "EAs": (sorted(node.eas.items()), [(name, value) for name, _, value in entry.ea_list]),
            "streams": (node.streams, entry.streams),
        }
        found += [f"{path}: {what}: {b!r} instead of {a!r}" for what, (a, b) in pairs.items() if a != b]
    by_id: dict[int, set[str]] = {}
    for path in expected.keys() & there.keys():
        by_id.setdefault(there[path].file_id, set()).add(path)
    if sorted(map(sorted, groups.values())) != sorted(map(sorted, by_id.values())):
        found.append("other hard links")
    return found
