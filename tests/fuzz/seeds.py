"""Seeds of the targets in C: one function each, inputs by name, in the form that the target takes apart."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cimfs_ext.backupstream import BackupStreamWriter
from support import cimoracle
from support.cimbytes import DATA, Builder, link_table, stream
from support.hives import TOMBSTONE, Node, Val, build, corpus
from support.images import DIRECTORY, METADATA, add, writer
from support.shared import SHARED_HIVES
from support.tars import DIRECTORY as TAR_DIRECTORY
from support.tars import GNU_MAGIC, SPARSE_FORMS, V7_FILE, V7_MAGIC, TarBuilder, base256, sparse_tar, windows_pax

UPCASE_SIZE = 131072
DESCRIPTOR = bytes([1, 0, 4, 0x80]) + bytes(16)

# ---- layer tars ----


def windows_layer(delta: bytes = b"regf") -> bytes:
    """A layer with all kinds of entries; what is in its delta hive is of no interest to the importer."""
    tar = TarBuilder()
    tar.directory("Files", pax=windows_pax(0x10, sd=DESCRIPTOR, creation=132 * 10**15))
    tar.file("Files/a.txt", b"content", pax=windows_pax(0x20, sddl="O:BAG:SY", eas={"A": b"1", "B": b"22"}))
    tar.stream("Files/a.txt", "zone:$DATA", b"stream")
    tar.symlink("Files/link", "../Files/a.txt", pax=windows_pax(0x420))
    tar.symlink("Files/mount", "C:/x", pax=windows_pax(0x410, mountpoint=True))
    tar.hardlink("Files/b.txt", "Files/a.txt")
    tar.file("Hives/System_Delta", delta)
    tar.hardlink("Files/c", "Hives/System_Delta")
    tar.whiteout("Files/old")
    tar.opaque("Files")
    return tar.finish()


def linux_layer() -> bytes:
    """Tars of other dialects and makers."""
    tar = TarBuilder()
    tar.file("deep/down/file", b"x" * 600, mtime=1_700_000_000)
    tar.gnu_long_name("long/" + "n" * 120)
    tar.file("short", b"long", magic=GNU_MAGIC)
    tar.pax_global({"comment": "no attributes yet"})
    tar.pax_global({"mtime": "1.5", "MSWINDOWS.xattr.G": "QQ=="})
    tar.pax_global({"atime": "-2.25"})
    tar.file("old/", kind=V7_FILE, magic=V7_MAGIC)
    tar.file("prefixed", b"p", prefix=b"some/where")
    tar.file("big", mtime=base256(-5, 12), size=base256(0, 12))
    tar.node("dir/", TAR_DIRECTORY)
    return tar.finish(end=b"")


def _path_that_fills_the_buffer_exactly() -> bytes:
    builder = TarBuilder()
    builder.pax({"path": "d/" * 16000 + "e" * 1030 + "/f"})
    builder.file("x")
    return builder.finish()


def _kinds_that_are_passed_over() -> bytes:
    builder = TarBuilder()
    builder.node("label", b"V")
    builder.file("list", b"Ya\0\0", kind=b"D")
    builder.file("f", b"1", magic=GNU_MAGIC, prefix=b"prefix of Go")
    return builder.finish()


def tar() -> dict[str, bytes]:
    """A byte that says how the tar is cut, then the tar."""
    return {
        "windows": b"\1" + windows_layer(),
        "windows-for-real": b"\xf2" + windows_layer(),
        "linux-for-real": b"\xf5" + linux_layer(),
        "linux": b"\x3c" + linux_layer(),
        "long-path": b"\0" + _path_that_fills_the_buffer_exactly(),
        "other-kinds": b"\xf1" + _kinds_that_are_passed_over(),
        **{
            f"sparse-{form}": b"\xf3" + sparse_tar(form, 5000, [(n * 700, b"data") for n in range(6)], "Hives/f")
            for form in SPARSE_FORMS
        },
        **{f"hole-{form}": b"\0" + sparse_tar(form, 500, [], "Hives/System_Delta") for form in SPARSE_FORMS},
    }


# ---- backup streams, EA and reparse buffers ----


def backupstream() -> dict[str, bytes]:
    """Cut, file size, backup stream."""
    make = BackupStreamWriter
    metadata = [*make.security(b"descriptor"), *make.extended_attributes(b"EAs"), *make.reparse(b"reparse")]
    streams = [*make.alternate_stream("zone", b"12"), *make.sparse_alternate_stream("map", 80, [(8, b"34")])]
    ranges = {"nothing": [], "one": [(0, b"a" * 64)], "several": [(4, b"b" * 8), (32, b"c")]}
    return {
        name: bytes([index, 64, 0])
        + b"".join([*metadata, *make.sparse_data(64, chosen), *streams, *make.links("other")])
        for index, (name, chosen) in enumerate(ranges.items())
    }


def ea() -> dict[str, bytes]:
    """Records of flags, sizes of name and value, name, value."""

    def record(name: bytes, value: bytes, flags: int = 0) -> bytes:
        return struct.pack("<BBH", flags, len(name), len(value)) + name + value

    return {
        "several": record(b"B", b"1") + record(b"A", b"22") + record(b"B", b"333"),
        "cancelled": record(b"A", b"1") + record(b"A", b""),
        "text": record(b"A", b"QQ==", 1) + record(b"C", b"QQ=", 1),
        "large": record(b"L" * 254, bytes(60000)),
    }


def reparse() -> dict[str, bytes]:
    """Kind, target."""
    targets = (r"..\a", r"C:\x", r"\\?\C:\x", r"\\server\share", "", "t" * 8000)
    return {
        f"{number}-{kind}": bytes([kind]) + target.encode("utf-16-le")
        for number, target in enumerate(targets)
        for kind in (0, 1)
    }


# ---- hives ----

SMALL = Node(
    values=[
        Val("", 1, b"a\0b\0"),
        Val("Значение", 4, b"\1\0\0\0"),
        Val("v", 3, b"123456789"),
        Val("t", tombstone=True),
    ],
    subkeys=[
        Node("A", class_name="class", subkeys=[Node("B", security=b"\1" * 30)]),
        Node("Ключ", layering=0x83),
        Node("gone", layering=TOMBSTONE),
    ],
)


def with_log(hive: bytes, log: bytes) -> bytes:
    """An input of a hive and its log."""
    return b"LOGS" + struct.pack("<I", len(hive)) + hive + log


def entry(sequence: int, bins: bytes) -> bytes:
    """A log entry that replaces all bins; the fuzz target makes its hashes right."""
    body = struct.pack("<16xII", 0, len(bins)) + bins
    size = (24 + len(body) + 511) // 512 * 512
    header = struct.pack("<4sIIIII", b"HvLE", size, 0, sequence, len(bins), 1)
    return header + body.ljust(size - 24, b"\0")


def hive() -> dict[str, bytes]:
    """Hives of every layout, dirty ones with logs of both kinds, and the small ones of the corpus."""
    found = {
        f"{minor}-{leaf.decode()}-{size}": build(SMALL, minor=minor, leaf=leaf, leaf_size=size, layered=minor == 6)
        for minor in (3, 5, 6)
        for leaf in (b"li", b"lf", b"lh")
        for size in (1, 100)
    }
    found["big-data"] = build(Node(values=[Val("v", 3, bytes(40000))]))
    found["many-values"] = build(Node(values=[Val(f"v{i}", 3, b"%d" % i) for i in range(40)]))
    found["deep"] = build(Node(subkeys=[Node("a", subkeys=[Node("b", subkeys=[Node("c", subkeys=[Node("d")])])])]))
    dirty, clean = build(Node(), sequences=(2, 1)), build(SMALL, sequences=(2, 2))
    header = bytearray(clean[:512])
    struct.pack_into("<I", header, 28, 6)
    found["new-log"] = with_log(dirty, bytes(header) + entry(1, dirty[4096:]) + entry(2, clean[4096:]))
    struct.pack_into("<I", header, 28, 1)
    sectors = (len(clean) - 4096) // 512
    bitmap = b"\xff" * (sectors // 8)
    found["old-log"] = with_log(dirty, bytes(header) + (b"DIRT" + bitmap).ljust(512, b"\0") + clean[4096:])
    if SHARED_HIVES.exists():
        for name in ("OffHive", "BCD", "SECURITY", "TruncatedHive"):
            found[name] = corpus(name)
        found["real-log"] = with_log(corpus("NewDirtyHive1.hive")[:24576], corpus("NewDirtyHive1.LOG2"))
    return found


# ---- images ----


def _image_input(path: Path) -> bytes:
    """An image in the form that the target takes apart."""
    image = cimoracle.Image(path.parent, path.name)
    (upcase,) = struct.unpack_from("<Q", image.at(image.header.filesystem_offset, 8, "filesystem object"))
    names = image.header.region_names
    files = [path.read_bytes()]
    files += [(path.parent / f"{kind}_{name}").read_bytes() for kind in ("region", "objectid") for name in names]
    assert upcase >> 48 == 0
    files[1] = files[1][:upcase] + files[1][upcase + UPCASE_SIZE :]
    sizes = b"".join(struct.pack("<I", len(data)) for data in files)
    return struct.pack("<BI", len(files), upcase) + sizes + b"".join(files)


def reader() -> dict[str, bytes]:
    """Images of each form, and a fork."""
    with tempfile.TemporaryDirectory() as folder:
        return {path.name: _image_input(path) for path in _images(Path(folder))}


def _images(directory: Path) -> Iterator[Path]:
    """Each is to be read before the next one is made: the last three have the same files."""
    with writer(directory, None, "p.cim") as image:
        add(image, "d", attributes=DIRECTORY)
        for name in "abc":
            add(image, f"d\\{name}", name.encode() * 50)
        add(image, "full", b"content", **METADATA)
        image.create_alternate_stream("full:s", 6)
        image.write(b"stream")
        image.create_file("sparse", size=100_000)
        image.commit()
    with writer(directory, "p.cim", "f.cim") as image:
        add(image, "d\\b", b"changed")
        add(image, "e", attributes=DIRECTORY)
        image.delete_path("d\\a")
        image.create_hard_link("e\\link", "full")
        image.commit()
    yield from (directory / "p.cim", directory / "f.cim")
    for record_size in (88, 96, 120):
        builder = Builder(version=3, record_size=record_size)
        streams = builder.put(link_table([("s", builder.data(b"stream")), ("t", stream(0, 99, DATA, True))]))
        children = {
            "a": builder.add(builder.pe_image(b"MZ" * 500, 900, [(100, 50), (200, 100), (800, 90)])),
            "b": builder.add(builder.data(b"text"), streams=streams),
        }
        inner = builder.directory(children)
        yield builder.save(directory / f"{record_size}.cim", builder.directory({"d": inner, "full": 1}))
