"""What the tests of The command share."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimlayer.formats.sddl import descriptor_from_sddl

DIRECTORY, READ_ONLY, ARCHIVE, REPARSE = 0x10, 0x01, 0x20, 0x400


SDDL = "O:BAG:SYD:P(A;;FA;;;SY)"


WRITTEN = 132223104001234567


SYMLINK = 0xA000000C


LARGE = bytes(range(256)) * 8192


HOSTILE = "csi\x9b31m\u202egnp.txt"


SURROGATE = "lone\ud800.txt"


def symbolic_link(target: str) -> bytes:
    name = target.encode("utf-16-le")
    body = struct.pack("<4HI", 0, len(name), len(name) + 2, len(name), 1) + 2 * (name + b"\0\0")
    return struct.pack("<IHH", SYMLINK, len(body), 0) + body


def extended_attribute(name: bytes, value: bytes) -> bytes:
    entry = struct.pack("<IBBH", 0, 0, len(name), len(value)) + name + b"\0" + value
    return entry + bytes(-len(entry) % 4)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything."""
    directory = tmp_path_factory.mktemp("images")
    descriptor = descriptor_from_sddl(SDDL)
    with ImageWriter(directory, None, "sample.cim") as writer:
        writer.create_file("Files", attributes=DIRECTORY, security_descriptor=descriptor)
        writer.create_file(
            r"Files\hello.txt",
            attributes=ARCHIVE | READ_ONLY,
            size=5,
            last_write_time=WRITTEN,
            security_descriptor=descriptor,
        )
        writer.write(b"hello")
        writer.create_alternate_stream(r"Files\hello.txt:Zone.Identifier", 4)
        writer.write(b"zone")
        writer.create_hard_link(r"Files\again.txt", r"Files\hello.txt")
        writer.create_file(r"Files\large.bin", attributes=ARCHIVE, size=len(LARGE))
        writer.write(LARGE)
        writer.create_file(r"Files\link", attributes=ARCHIVE | REPARSE, reparse_data=symbolic_link("hello.txt"))
        writer.create_file(r"Files\tagged", extended_attributes=extended_attribute(b"TAG", b"a tag"))
        writer.create_file("Odd", attributes=DIRECTORY)
        writer.create_file(f"Odd\\{HOSTILE}")
        writer.create_file(f"Odd\\{SURROGATE}")
        writer.commit()
    return directory / "sample.cim"
