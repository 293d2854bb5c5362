from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from cimlayer.formats.disks import ntfs, ntfs_security
from cimlayer.formats.disks.ntfs_records import CLUSTER, RECORD, Attribute, Run, nonresident
from support.disks import GIB, MIB, SERIAL, run, volume_image

SIZES = [16 * MIB, 1 * GIB, 20462 * MIB]
ROOT_FILES = [
    *("$AttrDef", "$BadClus", "$Bitmap", "$Boot", "$Extend", "$LogFile", "$MFT", "$MFTMirr"),
    *("$Secure", "$UpCase", "$Volume", "."),
]


@pytest.fixture(params=SIZES, ids=lambda size: f"{size // MIB}MiB")
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return volume_image(tmp_path / "volume", request.param)


def test_ntfsfix_finds_nothing_to_do(volume: Path) -> None:
    report = run("ntfsfix", "-n", volume).decode()
    assert "Mounting volume... OK" in report
    assert "$MFT and $MFTMirr completed successfully" in report
    assert "alternate boot sector... OK" in report
    assert "NTFS volume version is 3.1" in report


def test_ntfsinfo_reads_the_geometry(volume: Path) -> None:
    report = run("ntfsinfo", "-m", volume).decode()
    expected = {
        "Cluster Size": CLUSTER,
        "Sector Size": 512,
        "MFT Record Size": RECORD,
        "Index Block Size": 4096,
        "Volume Size in Clusters": volume.stat().st_size // CLUSTER - 1,
    }
    for field, value in expected.items():
        assert f"{field}: {value}\n" in report


def test_ntfsinfo_understands_every_record_in_use(volume: Path) -> None:
    for number in [*range(16), 24, 25, 26]:
        report = run("ntfsinfo", "-v", "-i", str(number), volume).decode()
        assert f"Dumping Inode {number} " in report
        assert "End of inode reached" in report


def test_ntfsresize_finds_used_clusters_and_bitmap_in_agreement(volume: Path) -> None:
    assert b"Collecting resizing constraints" in run("ntfsresize", "--info", "--force", volume)


def test_ntfsls_lists_the_system_files_and_nothing_else(volume: Path) -> None:
    names = run("ntfsls", "-a", "-s", volume).decode().split()
    assert sorted(set(names) - {".."}) == ROOT_FILES


def test_a_file_written_by_ntfscp_is_read_back(volume: Path, tmp_path: Path) -> None:
    from dissect.ntfs import NTFS

    content = bytes(range(256)) * 1000
    (tmp_path / "source").write_bytes(content)
    run("ntfscp", volume, tmp_path / "source", "Größe.bin")
    assert run("ntfscat", volume, "Größe.bin") == content
    with volume.open("rb") as file:
        assert NTFS(file).mft.get("GRÖßE.BIN").open().read() == content
    run("ntfsfix", "-n", volume)


def test_dissect_reads_directories_and_descriptors(volume: Path) -> None:
    from dissect.ntfs import NTFS

    with volume.open("rb") as file:
        reader = NTFS(file)
        assert sorted(reader.mft.get("/").listdir()) == ROOT_FILES
        assert sorted(reader.mft.get("/$Extend").listdir()) == ["$ObjId", "$Quota", "$Reparse"]
        assert reader.serial == SERIAL
        root = reader.secure.lookup(ntfs_security.ROOT_ID)
        assert root.owner == "S-1-5-32-544"
        assert [(ace.sid, ace.mask) for ace in root.dacl.ace] == [
            ("S-1-5-18", 0x1F01FF),
            ("S-1-5-32-544", 0x1F01FF),
            ("S-1-5-32-545", 0x1200A9),
            ("S-1-5-32-545", 4),
            ("S-1-5-32-545", 2),
            ("S-1-3-0", 0x10000000),
        ]
        assert reader.mft.get(ntfs._BITMAP).open().read() == expected_bitmap(reader, volume)


def expected_bitmap(reader: object, volume: Path) -> bytes:
    """The bitmap as it follows from the runs of every file, and the bits after the volume's end."""
    total = volume.stat().st_size // CLUSTER - 1
    bits = bytearray(-(-total // 64) * 64)
    bits[total:] = b"\1" * (len(bits) - total)
    for record in reader.mft.segments():  # type: ignore[attr-defined]
        for attributes in record.attributes.values():
            for attribute in attributes:
                if attribute.header.resident:
                    continue
                for lcn, count in attribute.header.dataruns():
                    if lcn is not None:
                        assert not any(bits[lcn : lcn + count]), "two files share a cluster"
                        bits[lcn : lcn + count] = b"\1" * count
    return bytes(sum(bit << n for n, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8))


def test_backup_boot_sector_is_the_last_sector_and_in_no_cluster(volume: Path) -> None:
    with volume.open("rb") as file:
        first = file.read(512)
        file.seek(-512, 2)
        assert file.read() == first
    (sectors,) = struct.unpack_from("<Q", first, 0x28)
    assert sectors == volume.stat().st_size // 512 - 1


def test_log_is_uninitialised(volume: Path) -> None:
    from dissect.ntfs import NTFS

    with volume.open("rb") as file:
        log = NTFS(file).mft.get("$LogFile").open().read()
    assert len(log) >= 2 * MIB
    assert not log.strip(b"\xff")


@pytest.fixture
def foreign_volume(tmp_path: Path) -> Path:
    path = tmp_path / "foreign"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    run("mkntfs", "--quiet", "--force", "--quick", "--cluster-size", "4096", path)
    return path


def test_attribute_definitions_equal_those_of_mkntfs(foreign_volume: Path, tmp_path: Path) -> None:
    ours = volume_image(tmp_path / "ours", 64 * MIB)
    assert run("ntfscat", "-i", "4", ours) == run("ntfscat", "-i", "4", foreign_volume)


def test_descriptors_are_hashed_as_mkntfs_does(foreign_volume: Path) -> None:
    stream = run("ntfscat", "-i", "9", "-a", "0x80", "-n", "$SDS", foreign_volume)
    checksum, _, _, size = struct.unpack_from("<IIQI", stream)
    assert checksum == ntfs_security._hash(stream[20:size])


@pytest.mark.parametrize(
    ("run_of_clusters", "pairs"),
    [
        (Run(4, 7), "11 07 04 00"),
        (Run(0x7F, 0x7F), "11 7f 7f 00"),
        (Run(0x80, 0x80), "22 80 00 80 00 00"),
        (Run(0x9FDC6, 1), "31 01 c6 fd 09 00"),
        (Run(None, 0x4FEDFF), "03 ff ed 4f 00"),
    ],
)
def test_runs_are_encoded_in_as_few_bytes_as_their_sign_allows(run_of_clusters: Run, pairs: str) -> None:
    attribute = nonresident(Attribute.DATA, run_of_clusters, 1)
    assert attribute[0x40:].rstrip(b"\0") == bytes.fromhex(pairs).rstrip(b"\0")


@pytest.mark.parametrize("size", [-MIB, 0, 512, 2 * MIB])
def test_a_volume_too_small_for_its_own_files_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match="too few for an NTFS volume"):
        ntfs.format_volume(size, first_sector=0, serial=0, created=0)


def test_a_volume_with_more_clusters_than_ntfs_counts_is_an_error() -> None:
    with pytest.raises(ValueError, match=re.escape("more than 4294967295 clusters")):
        ntfs.format_volume(17 << 40, first_sector=0, serial=0, created=0)
