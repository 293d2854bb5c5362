"""Makes the two sample layers beside this file: `python -m examples.make_sample_layer`, from the root.

`sample-layer.tar` is a whole base layer with one of everything; `sample-child.tar`, on top of it, changes,
adds and hides files.
"""

import argparse
import struct
from pathlib import Path

from examples.descriptors import (
    ADMINISTRATORS,
    FULL_ACCESS,
    INHERIT_TO_ALL,
    READ_AND_EXECUTE,
    SYSTEM,
    TRUSTED_INSTALLER,
    USERS,
    Allow,
    security_descriptor,
)
from examples.layer_tar import ARCHIVE, HIDDEN, READONLY, LayerTar
from examples.minimal_hive import minimal_hive

CONFIG = "Files/Windows/System32/config"
HIVES = ("SYSTEM", "SOFTWARE", "SAM", "SECURITY", "DEFAULT")
HIVES_WRITTEN = 132_223_104_000_000_000  # 2020-01-01 as a FILETIME

OF_DIRECTORIES = security_descriptor(
    TRUSTED_INSTALLER,
    TRUSTED_INSTALLER,
    [
        Allow(SYSTEM, FULL_ACCESS, INHERIT_TO_ALL),
        Allow(ADMINISTRATORS, FULL_ACCESS, INHERIT_TO_ALL),
        Allow(USERS, READ_AND_EXECUTE, INHERIT_TO_ALL),
    ],
)
OF_FILES = security_descriptor(
    ADMINISTRATORS,
    SYSTEM,
    [Allow(SYSTEM, FULL_ACCESS), Allow(ADMINISTRATORS, FULL_ACCESS), Allow(USERS, READ_AND_EXECUTE)],
)
OF_HIVES = security_descriptor(SYSTEM, SYSTEM, [Allow(SYSTEM, FULL_ACCESS)])
OF_NOTES_AS_TEXT = "O:BAG:SYD:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;0x1200a9;;;BU)"


def _library() -> bytes:
    """Begins as a DLL does, which is all that anything looks at here; it cannot be loaded."""
    offset_of_pe_header = 0x80
    dos_header = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", offset_of_pe_header)
    amd64, is_a_dll = 0x8664, 0x2022
    pe_header = struct.pack("<4sHHIIIHH", b"PE\0\0", amd64, 0, 0, 0, 0, 0, is_a_dll)
    return (dos_header.ljust(offset_of_pe_header, b"\0") + pe_header).ljust(20_000, b"\xcc")


def _write_base(layer: LayerTar) -> None:
    layer.directory(CONFIG, OF_DIRECTORIES)
    for name in HIVES:
        layer.file(f"{CONFIG}/{name}", minimal_hive(name, HIVES_WRITTEN), OF_HIVES)
    layer.file("Files/Windows/System32/sample.dll", _library(), OF_FILES)
    layer.directory("Files/Users/Public/Documents", OF_DIRECTORIES)
    layer.file("Files/Users/Public/desktop.ini", b"[.ShellClassInfo]\r\n", OF_FILES, attributes=HIDDEN | ARCHIVE)
    layer.directory("Files/App/cache", OF_DIRECTORIES)
    layer.file("Files/App/hello.txt", b"Hello from the base layer.\r\n", OF_FILES, attributes=READONLY | ARCHIVE)
    layer.file("Files/App/notes.txt", b"My descriptor came as text.\r\n", sddl=OF_NOTES_AS_TEXT)
    layer.alternate_stream("Files/App/notes.txt:Zone.Identifier:$DATA", b"[ZoneTransfer]\r\nZoneId=3\r\n")
    layer.file(
        "Files/App/tagged.bin",
        bytes(range(256)),
        OF_FILES,
        extended_attributes={"SAMPLE.TAG": b"an attribute"},
    )
    layer.file("Files/App/empty.txt", b"", OF_FILES)
    layer.file("Files/App/cache/old.tmp", b"old", OF_FILES)
    layer.hard_link("Files/App/also-sample.dll", "Files/Windows/System32/sample.dll")
    layer.symbolic_link("Files/App/link-to-hello.txt", "hello.txt", OF_FILES)


def _write_child(layer: LayerTar) -> None:
    layer.directory("Files/App/cache", OF_DIRECTORIES)
    layer.file("Files/App/hello.txt", b"Hello from the child layer.\r\n", OF_FILES)
    layer.file("Files/App/new.txt", b"Only here.\r\n", OF_FILES)
    layer.whiteout("Files/App/empty.txt")
    layer.whiteout("Files/App/cache/")
    layer.file("Files/App/cache/new.tmp", b"new", OF_FILES)
    layer.hard_link("Files/App/notes-too.txt", "Files/App/notes.txt")


LAYERS = {"sample-layer.tar": _write_base, "sample-child.tar": _write_child}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the sample layers.")
    parser.add_argument("--output-dir", type=Path, default=Path(__file__).parent)
    directory: Path = parser.parse_args().output_dir
    for name, write in LAYERS.items():
        with (directory / name).open("wb") as out, LayerTar(out) as layer:
            write(layer)


if __name__ == "__main__":
    main()
