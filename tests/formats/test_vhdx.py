from __future__ import annotations

import contextlib
import io
import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimfs_ext.crc32c import crc32c
from cimlayer.errors import FormatError
from cimlayer.formats.disks import create_differencing_disk, vhdx
from cimlayer.formats.disks.extents import Extent
from cimlayer.formats.disks.identity import IdentitySource
from support.disks import GIB, MIB, opened, run

SOURCE = IdentitySource(b"vhdx tests")


class GrowingFile(io.BytesIO):
    """A file in memory that ``truncate`` can lengthen, as it does a real one."""

    def truncate(self, size: int | None = None, /) -> int:
        missing = (size or 0) - len(self.getbuffer())
        if missing > 0:
            self.seek(0, io.SEEK_END)
            self.write(bytes(missing))
        return super().truncate(size)


def dynamic(size: int, extents: list[Extent]) -> io.BytesIO:
    file = GrowingFile()
    vhdx.write_dynamic(file, size, extents, SOURCE)
    file.seek(0)
    return file


def damaged(offset: int, data: bytes, *more_offsets: int) -> io.BytesIO:
    file = dynamic(64 * MIB, [])
    for place in (offset, *more_offsets):
        file.seek(place)
        file.write(data)
    return file


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_crc32c_gives_the_published_values(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


def test_file_holds_only_the_blocks_that_are_written() -> None:
    file = dynamic(20 * GIB, [(0, b"first"), (20 * GIB - 4, b"last")])
    assert len(file.getvalue()) == 4 * MIB + 2 * MIB


@given(
    pieces=st.dictionaries(st.integers(0, 255), st.binary(min_size=1, max_size=64), max_size=8),
    blocks_apart=st.sampled_from([1, 4095, 4096, 4097]),
)
def test_an_independent_reader_finds_every_extent(pieces: dict[int, bytes], blocks_apart: int) -> None:
    from dissect.hypervisor.disk.vhdx import VHDX

    # 30 bytes before a block's start, so that longer pieces cross into the next block
    extents = [((number * blocks_apart + 1) * MIB - 30, data) for number, data in pieces.items()]
    size = (max(pieces, default=0) * blocks_apart + 2) * MIB
    file = dynamic(size, extents)
    disk = VHDX(file)
    assert disk.size == size
    for offset, data in extents:
        disk.seek(offset)
        assert disk.read(len(data)) == data
        assert disk.read(32) == bytes(32)


def test_both_headers_and_region_tables_carry_their_checksum() -> None:
    content = dynamic(64 * MIB, []).getvalue()
    for signature, offset, size in (
        (b"head", 64 << 10, 4 << 10),
        (b"head", 128 << 10, 4 << 10),
        (b"regi", 192 << 10, 64 << 10),
        (b"regi", 256 << 10, 64 << 10),
    ):
        structure = bytearray(content[offset : offset + size])
        assert structure[:4] == signature
        (stored,) = struct.unpack_from("<I", structure, 4)
        structure[4:8] = bytes(4)
        assert stored == crc32c(bytes(structure))


def test_metadata_is_as_windows_expects_of_a_scratch_disk() -> None:
    from dissect.hypervisor.disk import vhdx as reader

    disk = reader.VHDX(dynamic(20 * GIB, []))
    assert (disk.size, disk.block_size, disk.sector_size, disk.has_parent) == (20 * GIB, MIB, 512, 0)
    assert disk.id == SOURCE.guid("base virtual disk")


def test_qemu_accepts_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    path.write_bytes(dynamic(5 * GIB, [(0, b"a"), (4 * GIB, b"b")]).getvalue())
    run("qemu-img", "check", path)
    assert b"virtual size: 5 GiB" in run("qemu-img", "info", path)


def test_differencing_disk_names_its_parent(tmp_path: Path) -> None:
    parent, child = tmp_path / "below" / "base.vhdx", tmp_path / "child.vhdx"
    parent.parent.mkdir()
    parent.write_bytes(dynamic(64 * MIB, [(5 * MIB + 17, b"content of the parent")]).getvalue())
    create_differencing_disk(child, parent)

    with opened(child) as disk:
        assert disk.has_parent
        assert disk.parent_locator.entries == {
            "parent_linkage": f"{{{SOURCE.guid('base data write')}}}",
            "relative_path": ".\\below\\base.vhdx",
        }
        disk.seek(5 * MIB + 17)
        assert disk.read(21) == b"content of the parent"
    assert child.stat().st_size == 4 * MIB


def test_libvhdi_sees_the_same_linkage(tmp_path: Path) -> None:
    parent, child = tmp_path / "base.vhdx", tmp_path / "child.vhdx"
    parent.write_bytes(dynamic(64 * MIB, []).getvalue())
    create_differencing_disk(child, parent)

    def fields(path: Path) -> dict[str, str]:
        lines = (line.split(":", 1) for line in run("vhdiinfo", path).decode().splitlines() if ":" in line)
        return {key.strip(): value.strip() for key, value in lines}

    assert fields(parent)["Disk type"] == "Dynamic"
    assert fields(child)["Disk type"] == "Differential"
    assert fields(child)["Parent identifier"] == fields(parent)["Identifier"]


def test_parent_in_another_directory_is_found_upwards(tmp_path: Path) -> None:
    parent, child = tmp_path / "base.vhdx", tmp_path / "above" / "child.vhdx"
    child.parent.mkdir()
    parent.write_bytes(dynamic(64 * MIB, []).getvalue())
    create_differencing_disk(child, parent)
    with opened(child) as disk:
        assert disk.parent_locator.entries["relative_path"] == "..\\base.vhdx"


def test_a_differencing_disk_can_be_a_parent(tmp_path: Path) -> None:
    base, middle, top = (tmp_path / f"{name}.vhdx" for name in ("base", "middle", "top"))
    base.write_bytes(dynamic(64 * MIB, []).getvalue())
    create_differencing_disk(middle, base)
    create_differencing_disk(top, middle)
    with middle.open("rb") as file:
        below = vhdx.read_parent(file, "middle")
    with top.open("rb") as file:
        assert vhdx.read_parent(file, "top").geometry == below.geometry
    assert below.geometry.size == 64 * MIB


@pytest.mark.parametrize(("logical", "physical"), [(512, 512), (512, 4096), (4096, 4096)])
def test_differencing_disk_has_the_sectors_and_identifier_of_its_parent(
    tmp_path: Path, logical: int, physical: int
) -> None:
    parent, child = tmp_path / "base.vhdx", tmp_path / "child.vhdx"
    sectors = 2 * MIB + (64 << 10) + 32
    parent.write_bytes(damaged(sectors, struct.pack("<II", logical, physical)).getvalue())
    create_differencing_disk(child, parent)
    with parent.open("rb") as below, child.open("rb") as above:
        expected = vhdx.Geometry(64 * MIB, SOURCE.guid("base virtual disk"), logical, physical)
        assert vhdx.read_parent(below, "base").geometry == vhdx.read_parent(above, "child").geometry == expected
        above.seek(sectors)
        assert struct.unpack("<II", above.read(8)) == (logical, physical)
    with opened(child) as disk:
        assert (disk.id, disk.sector_size) == (expected.disk_id, logical)


def test_the_header_with_the_higher_sequence_number_counts() -> None:
    file = dynamic(64 * MIB, [])
    newer = bytearray(file.getvalue()[64 << 10 : 68 << 10])
    newer[8:16] = struct.pack("<Q", 7)
    newer[32:48] = uuid.UUID(int=7).bytes_le
    file.seek(64 << 10)
    file.write(with_valid_checksum(bytes(newer)))
    assert vhdx.read_parent(file, "disk").data_write_guid == uuid.UUID(int=7)


def test_one_damaged_copy_of_a_structure_is_survived() -> None:
    for offset in (64 << 10, 128 << 10, 192 << 10, 256 << 10):
        assert vhdx.read_parent(damaged(offset + 8, b"\x55"), "disk").geometry.size == 64 * MIB


SECTOR_SIZE_ITEM = 2 * MIB + 32 + 3 * 32


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (io.BytesIO(b""), "ends"),
        (io.BytesIO(b"vhdxfile"), "ends"),
        (damaged(0, b"conectix"), "not a VHDX"),
        (damaged(64 << 10, b"tail", 128 << 10), "neither VHDX header"),
        (damaged(192 << 10, b"tail", 256 << 10), "neither VHDX region table"),
        (damaged(2 * MIB, b"metaphor"), "no metadata table"),
        (damaged(SECTOR_SIZE_ITEM, bytes(16)), "8141bf1d-a96f-4709-ba47-f233a8faab5f"),
        (damaged(2 * MIB + (64 << 10) + 8, bytes(8)), "impossible disk size 0"),
        (damaged(2 * MIB + (64 << 10) + 32, struct.pack("<I", 1024)), "logical sectors of 1024 bytes"),
        (damaged(2 * MIB + (64 << 10) + 36, struct.pack("<I", 0)), "physical sectors of 0 bytes"),
    ],
)
def test_a_parent_that_cannot_be_used_is_an_error_that_names_it(file: io.BytesIO, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        vhdx.read_parent(file, "the parent")
    assert caught.value.what == "the parent"


def with_valid_checksum(structure: bytes) -> bytes:
    unsigned = structure[:4] + bytes(4) + structure[8:]
    return structure[:4] + struct.pack("<I", crc32c(unsigned)) + structure[8:]


@pytest.mark.parametrize("offset", [1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_metadata_outside_the_file_is_an_error(offset: int) -> None:
    table = bytearray(dynamic(64 * MIB, []).getvalue()[192 << 10 : 256 << 10])
    struct.pack_into("<Q", table, 16 + 32 + 16, offset)
    with pytest.raises(FormatError, match="the parent: the file ends"):
        vhdx.read_parent(damaged(192 << 10, with_valid_checksum(bytes(table))), "the parent")


@pytest.mark.parametrize("offset", [1 << 40, 1 << 50, (1 << 63) - 1, 1 << 63])
def test_metadata_beyond_what_a_file_system_can_hold_is_the_same_error(offset: int, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    table = bytearray(dynamic(64 * MIB, []).getvalue()[192 << 10 : 256 << 10])
    struct.pack_into("<Q", table, 16 + 32 + 16, offset)
    parent.write_bytes(damaged(192 << 10, with_valid_checksum(bytes(table))).getvalue())
    with pytest.raises(FormatError, match="parent: the file ends"):
        create_differencing_disk(tmp_path / "child", parent)


@given(at=st.integers(0, 300), data=st.binary(min_size=1, max_size=40))
def test_damaged_metadata_gives_a_disk_or_a_format_error(at: int, data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert 0 < vhdx.read_parent(damaged(2 * MIB + at, data), "disk").geometry.size <= vhdx.MAX_SIZE


def test_a_parent_with_an_unreplayed_log_is_an_error() -> None:
    header = bytearray(dynamic(64 * MIB, []).getvalue()[128 << 10 : 132 << 10])
    header[48:64] = uuid.UUID(int=1).bytes_le
    with pytest.raises(FormatError, match="log must be replayed"):
        vhdx.read_parent(damaged(128 << 10, with_valid_checksum(bytes(header))), "the parent")
