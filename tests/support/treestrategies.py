"""Trees with all that a CIM can hold, for hypothesis."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st

from support.image_layers import MOUNT_POINT, link_data
from support.images import DIRECTORY, writer

_SYSTEM = struct.pack("<BB6sI", 1, 1, (5).to_bytes(6, "big"), 18)
_NAMES = st.text("abcdé漢😀12 _-~$(!", min_size=1, max_size=8).map(lambda name: f"{name}x")
UNKNOWN_TAG = struct.pack("<IHH", 0x80000018, 8, 0) + b"anything"


def descriptor(access: int) -> bytes:
    """With an owner, a group and one entry."""
    ace = struct.pack("<BBHI", 0, 0, 8 + len(_SYSTEM), access) + _SYSTEM
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(ace), 1, 0) + ace
    return struct.pack("<BBHIIII", 1, 0, 0x8004, 20, 20 + len(_SYSTEM), 0, 20 + 2 * len(_SYSTEM)) + 2 * _SYSTEM + acl


def ea_list(attributes: Mapping[str, bytes]) -> bytes:
    """FILE_FULL_EA_INFORMATION as an import makes it: every entry is padded."""
    entries = []
    for name, value in attributes.items():
        entry = struct.pack("<IBBH", 0, 0, len(name), len(value)) + name.encode() + b"\0" + value
        entries.append(entry + bytes(-len(entry) % 4))
    whole = [len(entry).to_bytes(4, "little") + entry[4:] for entry in entries[:-1]]
    return b"".join(whole + entries[-1:])


@dataclass
class Made:
    """One entry; a file has content, with None as a hole of 100,000 bytes."""

    attributes: int
    times: tuple[int, int, int, int]
    security_descriptor: bytes
    extended_attributes: bytes
    reparse_data: bytes
    content: bytes | None
    streams: dict[str, bytes]
    links: list[str] = field(default_factory=list)  # further names in the root
    children: dict[str, Made] = field(default_factory=dict)


TIMES = st.integers(120_000_000_000_000_000, 150_000_000_000_000_000)
EAS = st.dictionaries(
    st.text("ABCXYZ.$_019", min_size=1, max_size=12), st.binary(min_size=1, max_size=40), max_size=3
).map(ea_list)
RELATIVE = st.sampled_from(["target", r"..\x", r"a\b"]).map(link_data)
REPARSE_DATA = st.one_of(
    st.just(b""),
    RELATIVE,
    st.just(link_data(r"C:\Windows", relative=False)),
    st.just(link_data(r"C:\Windows", tag=MOUNT_POINT)),
    st.just(UNKNOWN_TAG),
)


def entries(*, directory: bool, children: st.SearchStrategy[dict[str, Made]] | None = None) -> st.SearchStrategy[Made]:
    streams = st.dictionaries(_NAMES, st.binary(max_size=100), max_size=2)
    return st.builds(
        Made,
        attributes=st.sampled_from([0, 1, 2, 4, 0x20, 0x27]).map(lambda bits: bits | (DIRECTORY if directory else 0)),
        times=st.tuples(TIMES, TIMES, TIMES, TIMES),
        security_descriptor=st.sampled_from([descriptor(access) for access in (0x1F01FF, 0x1200A9)]),
        extended_attributes=EAS,
        reparse_data=st.just(b"") if children is not None else REPARSE_DATA,
        content=st.just(b"") if directory else st.one_of(st.none(), st.binary(max_size=3000)),
        streams=streams,
        links=st.just([]) if directory else st.lists(_NAMES, max_size=1),
        children=st.just({}) if children is None else children,
    ).map(_sensible)


def _sensible(made: Made) -> Made:
    """A reparse point has no content, and only one name; a mount point is a directory."""
    if made.reparse_data[:4] == MOUNT_POINT.to_bytes(4, "little") and not made.attributes & DIRECTORY:
        made.reparse_data = b""
    if made.reparse_data:
        made.content, made.links = b"", []
    if made.content is not None and len(made.content) == 1:
        made.content *= 2  # a system file of one byte is a socket to ntfs-3g
    if made.content is None:
        made.attributes |= 0x200
    return made


LEAVES = st.one_of(entries(directory=False), entries(directory=True))
TREES = st.dictionaries(_NAMES, LEAVES, max_size=4).flatmap(
    lambda leaves: st.dictionaries(
        _NAMES, st.one_of(LEAVES, entries(directory=True, children=st.just(leaves))), max_size=5
    )
)


def write_tree(directory: Path, name: str, tree: Mapping[str, Made]) -> Path:
    """The image of a tree."""
    with writer(directory, None, name) as image:
        pending = [(path, made) for path, made in tree.items()]
        used = {path.upper() for path in tree}
        while pending:
            path, made = pending.pop()
            creation, last_write, change, last_access = made.times
            image.create_file(
                path,
                attributes=made.attributes,
                size=100_000 if made.content is None else len(made.content),
                creation_time=creation,
                last_write_time=last_write,
                change_time=change,
                last_access_time=last_access,
                security_descriptor=made.security_descriptor,
                reparse_data=made.reparse_data,
                extended_attributes=made.extended_attributes,
            )
            image.write(made.content or b"")
            for stream, data in made.streams.items():
                image.create_alternate_stream(f"{path}:{stream}", len(data))
                image.write(data)
            for link in made.links:
                if link.upper() not in used:
                    used.add(link.upper())
                    image.create_hard_link(link, path)
            pending.extend((f"{path}\\{below}", entry) for below, entry in made.children.items())
        image.commit()
    return directory / name
