"""What the tests of ImageReader share."""

import random
import struct
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from support.cimbytes import DATA, Builder, link_table, stream
from support.images import DIRECTORY, NULL_DACL, TIME, add

NOISE = random.Random(2).randbytes(3 << 20)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sample")
    with ImageWriter(directory, None, "a.cim", sync=False, time=TIME) as image:
        for path in ("d", "d\\e", "empty"):
            add(image, path, attributes=DIRECTORY)
        for name in ("b", "A", "C", "_", "ä", "Z", "a1"):
            add(image, f"d\\{name}", name.encode())
        add(
            image,
            "big",
            NOISE,
            attributes=0x21,
            creation_time=1,
            last_write_time=2,
            change_time=3,
            last_access_time=4,
        )
        image.create_alternate_stream("big:zone", 5)
        image.write(b"hello")
        image.create_alternate_stream("big:Large", 1 << 20)
        image.write(NOISE[: 1 << 20])
        image.create_file("sparse", size=10_000)
        add(image, "link", attributes=0x400, reparse_data=struct.pack("<IHH", 0xA000000C, 4, 0) + b"abcd")
        image.create_hard_link("d\\e\\hard", "big")
        image.commit()
    return directory / "a.cim"


def small_tree(builder: Builder) -> int:
    inner = builder.add(builder.data(b"inner"), parent=2)
    children = {
        "a": inner,
        "b": builder.add(builder.data(NOISE[:9000])),
        "c": builder.add(stream(0, 12345, DATA, True)),
    }
    streams = link_table([("s", builder.data(b"stream")), ("t", stream(0, 99, DATA, True))])
    table = builder.put(streams, 0, "streams")
    reparse = struct.pack("<IHH", 0xA000000C, 4, 0) + b"link"
    ea = struct.pack("<IBBH", 0, 0, 1, 2) + b"E\0ab"
    full = builder.add(
        builder.data(b"full"),
        flags=0x1F,
        tag=0xA000000C,
        security=builder.counted(NULL_DACL, "sd"),
        reparse=builder.counted(reparse, "reparse"),
        ea=builder.put(ea, 0, "ea"),
        ea_size=len(ea),
        streams=table,
    )
    directory = builder.directory(children, "links of d")
    return builder.directory({"d": directory, "full": full}, "links of the root")


def check_small_tree(path: Path) -> None:
    with ImageReader(path) as image:
        assert [name for name, _ in image.walk()] == ["d", "d\\a", "d\\b", "d\\c", "full"]
        assert image.read("d\\a") == b"inner"
        assert image.read("D\\B") == NOISE[:9000]
        assert image.read("d\\c") == bytes(12345)
        assert image.stat("d\\c").sparse
        full = image.stat("full")
        assert full.attributes == 0x627
        assert (full.creation_time, full.last_write_time, full.change_time, full.last_access_time) == (
            1,
            2,
            3,
            4,
        )
        assert image.security_descriptor(full) == NULL_DACL
        assert image.reparse_data(full)[8:] == b"link"
        assert image.extended_attributes(full)[-2:] == b"ab"
        assert {stream.name: image.read(full, stream.name) for stream in image.streams(full)} == {
            "s": b"stream",
            "t": bytes(99),
        }
        report = image.verify()
    assert report.problems == ()
    assert (report.files, report.directories, report.streams) == (4, 2, 2)


u16, u32, u64 = (struct.Struct(code).pack for code in ("<H", "<I", "<Q"))
