from __future__ import annotations

import contextlib
import errno
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from cimlayer.errors import FormatError
from cimlayer.formats.disks import (
    DiskIdentity,
    create_differencing_disk,
    create_formatted_disk,
    create_scratch_disk,
    gpt,
)
from cimlayer.formats.sddl import sddl_from_descriptor
from cimlayer.host import beneath
from support.disks import GIB, MIB, opened, partition_image, run
from support.platforms import WINDOWS, not_under_wine

if sys.platform == "win32":
    from cimfs_ext import winfiles

SCRATCH_SIZE = 20 * GIB


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, DiskIdentity]:
    directory = tmp_path_factory.mktemp("scratch")
    base, diff = directory / "blank-base.vhdx", directory / "blank.vhdx"
    return base, diff, create_scratch_disk(base, diff, SCRATCH_SIZE)


Scratch = tuple[Path, Path, DiskIdentity]


def sectors(path: Path, first: int, count: int = 1) -> bytes:
    with opened(path) as disk:
        disk.seek(first * 512)
        return bytes(disk.read(count * 512))


def table_headers(path: Path) -> list[tuple[int, ...]]:
    """Both GPT headers as (own, other, first usable, last usable, entries), their checksums verified."""
    headers = []
    for lba in (1, SCRATCH_SIZE // 512 - 1):
        header = sectors(path, lba)
        signature, revision, size, checksum, _, *places = struct.unpack_from("<8sIIII4Q", header)
        assert (signature, revision, size) == (b"EFI PART", 0x10000, 92)
        assert checksum == zlib.crc32(header[:16] + bytes(4) + header[20:92])
        entries, count, entry_size, entries_checksum = struct.unpack_from("<QIII", header, 72)
        assert (count, entry_size) == (128, 128)
        assert entries_checksum == zlib.crc32(sectors(path, entries, 32))
        headers.append((*places, entries))
    return headers


def test_disks_take_a_few_tens_of_mib(scratch: Scratch) -> None:
    base, diff, _ = scratch
    assert base.stat().st_size <= 32 * MIB
    assert diff.stat().st_size <= 4 * MIB


def test_both_partition_tables_are_intact_and_name_each_other(scratch: Scratch) -> None:
    last = SCRATCH_SIZE // 512 - 1
    assert table_headers(scratch[0]) == [(1, last, 34, last - 33, 2), (last, 1, 34, last - 33, last - 32)]


def test_protective_mbr_covers_the_disk(scratch: Scratch) -> None:
    mbr = sectors(scratch[0], 0)
    assert mbr[510:] == b"\x55\xaa"
    assert struct.unpack_from("<B3xB3xII", mbr, 446) == (0, 0xEE, 1, SCRATCH_SIZE // 512 - 1)
    assert mbr[462:510] == bytes(48)


def test_partitions_are_reserved_and_basic_data_aligned_to_mib(scratch: Scratch) -> None:
    from dissect.volume.disk import Disk

    base, diff, identity = scratch
    for path in (base, diff):
        with opened(path) as disk:
            reserved, data = Disk(disk).partitions
        assert reserved.type == UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae")
        assert data.type == UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
        assert UUID(bytes_le=sectors(path, 1)[56:72]) == identity.disk_guid
        assert data.guid == identity.partition_guid
        assert (reserved.offset, data.offset) == (MIB, 17 * MIB)
        first, last = struct.unpack("<QQ", sectors(path, 2)[128 + 32 : 128 + 48])
        assert (first * 512, (last + 1) * 512) == (17 * MIB, SCRATCH_SIZE - MIB)
        assert len({reserved.guid, *guids(identity)}) == 3


def guids(identity: DiskIdentity) -> tuple[UUID, UUID]:
    return identity.disk_guid, identity.partition_guid


def test_sfdisk_accepts_the_partition_table(scratch: Scratch, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    run("qemu-img", "convert", scratch[0], "-O", "raw", raw)
    assert b"No errors detected" in run("sfdisk", "--verify", raw)


def test_qemu_accepts_the_base_disk(scratch: Scratch) -> None:
    run("qemu-img", "check", scratch[0])
    report = run("qemu-img", "info", scratch[0])
    assert b"virtual size: 20 GiB" in report
    assert b"cluster_size: 1048576" in report


def test_partition_holds_a_volume_that_ntfs_3g_writes_to(scratch: Scratch, tmp_path: Path) -> None:
    volume = partition_image(scratch[0], SCRATCH_SIZE, tmp_path / "volume")
    run("ntfsfix", "-n", volume)
    (tmp_path / "source").write_bytes(b"sandbox" * 9999)
    run("ntfscp", volume, tmp_path / "source", "written.txt")
    assert run("ntfscat", volume, "written.txt") == b"sandbox" * 9999


def test_volume_is_readable_through_the_differencing_disk(scratch: Scratch) -> None:
    from dissect.ntfs import NTFS
    from dissect.volume.disk import Disk

    with opened(scratch[1]) as disk:
        volume = NTFS(Disk(disk).partitions[1].open())
        assert "$UpCase" in volume.mft.get("/").listdir()
        assert len(volume.mft.get("$UpCase").open().read()) == 131072


def test_boot_sector_knows_where_on_the_disk_it_stands(scratch: Scratch) -> None:
    assert struct.unpack_from("<I", sectors(scratch[0], 17 * 2048), 0x1C) == (17 * 2048,)


def test_same_seed_gives_the_same_disks(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        identity = create_scratch_disk(directory / "b", directory / "d", 64 * MIB, seed=b"seed")
        made.append((identity, (directory / "b").read_bytes(), (directory / "d").read_bytes()))
    assert made[0] == made[1]


def test_apart_or_together_a_seed_gives_the_same_disks(tmp_path: Path) -> None:
    (tmp_path / "together").mkdir()
    (tmp_path / "apart").mkdir()
    create_scratch_disk(tmp_path / "together/b", tmp_path / "together/d", 64 * MIB, seed=b"seed")
    create_formatted_disk(tmp_path / "apart/b", 64 * MIB, seed=b"seed")
    create_differencing_disk(tmp_path / "apart/d", tmp_path / "apart/b", seed=b"seed")
    for name in "bd":
        assert (tmp_path / "apart" / name).read_bytes() == (tmp_path / "together" / name).read_bytes()


@pytest.mark.parametrize("seeds", [(None, None), (b"one", b"two"), (b"", b"\0")])
def test_other_seeds_and_no_seed_give_other_identities(tmp_path: Path, seeds: list[bytes | None]) -> None:
    first, second = (create_formatted_disk(tmp_path / "disk", 64 * MIB, seed=seed) for seed in seeds)
    assert not set(guids(first)) & set(guids(second))


def test_existing_files_are_replaced(tmp_path: Path) -> None:
    for name in "bd":
        (tmp_path / name).write_bytes(b"old" * MIB)
    create_scratch_disk(tmp_path / "b", tmp_path / "d", 64 * MIB)
    assert all((tmp_path / name).read_bytes()[:8] == b"vhdxfile" for name in "bd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "d"]


@pytest.mark.parametrize(
    "size",
    [-MIB, 0, MIB, 17 * MIB, 19 * MIB, 64 * MIB + 512, 17 << 40, 65 << 40],
)
def test_an_impossible_size_is_an_error_and_leaves_the_old_file(tmp_path: Path, size: int) -> None:
    (tmp_path / "disk").write_bytes(b"old")
    with pytest.raises(ValueError, match=r"whole MiB|too few|more than"):
        create_formatted_disk(tmp_path / "disk", size)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("disk", b"old")]


@pytest.mark.parametrize("refused", [None, "d"])
def test_virtual_machines_may_read_both_disks_or_neither_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str | None
) -> None:
    admitted = []

    def admit(path: Path) -> None:
        admitted.append(path.name.split(".")[1])
        if admitted[-1] == refused:
            raise PermissionError(errno.EACCES, "denied", str(path))

    monkeypatch.setattr("cimlayer.formats.disks._admit_virtual_machines", admit)
    with contextlib.nullcontext() if refused is None else pytest.raises(PermissionError, match="denied"):
        create_scratch_disk(tmp_path / "b", tmp_path / "d", 64 * MIB)
    assert admitted == ["b", "d"]
    assert sorted(path.name for path in tmp_path.iterdir()) == (["b", "d"] if refused is None else [])


@pytest.mark.skipif(not WINDOWS, reason="Windows only: its groups")
@not_under_wine("groups in a descriptor")
def test_the_group_of_all_virtual_machines_may_read_a_disk(tmp_path: Path) -> None:
    create_formatted_disk(tmp_path / "disk", 64 * MIB)
    directory = beneath.open_top(tmp_path)
    try:
        with winfiles.OpenFile(b"disk", directory) as file:
            assert "(A;;FR;;;S-1-5-83-0)" in sddl_from_descriptor(file.security_descriptor())
    finally:
        beneath.close(directory)


def test_when_the_second_disk_cannot_be_placed_the_first_is_not_left(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError, match="d"):
        create_scratch_disk(tmp_path / "b", tmp_path / "d", 64 * MIB)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (lambda path: None, FileNotFoundError),
        (lambda path: path.write_bytes(b""), FormatError),
        (lambda path: path.write_bytes(b"no disk" * 99999), FormatError),
        (lambda path: path.mkdir(), OSError),
    ],
)
def test_a_parent_that_is_no_disk_is_an_error_that_names_it(
    tmp_path: Path, prepare: Callable[[Path], object], error: type[Exception]
) -> None:
    prepare(tmp_path / "parent")
    with pytest.raises(error, match="parent"):
        create_differencing_disk(tmp_path / "disk", tmp_path / "parent")
    assert not (tmp_path / "disk").exists()
    if (tmp_path / "parent").is_dir():
        shutil.rmtree(tmp_path / "parent")


def test_data_partition_ends_on_a_whole_mib_before_the_backup_table() -> None:
    for size in (64 * MIB, 10 * GIB, 20 * GIB):
        assert gpt.DATA_OFFSET + gpt.data_partition_size(size) == size - MIB
