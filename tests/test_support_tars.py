"""The tar builder of the tests, read back by the standard library."""

import io
import tarfile

import pytest

from support import tars
from support.platforms import same_everywhere
from support.tars import TarBuilder, windows_pax

pytestmark = same_everywhere


def read(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: member for member in tar}


def content(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_every_kind_of_entry_is_read_back() -> None:
    builder = TarBuilder()
    builder.directory("Files")
    builder.file("Files/a", b"x" * 513, mode=0o600, uid=7, mtime=12345)
    builder.stream("Files/a", "zone:$DATA", b"z")
    builder.hardlink("Files/b", "Files/a")
    builder.symlink("Files/c", "a")
    builder.node("Files/fifo", tars.FIFO)
    builder.whiteout("Files/old")
    builder.whiteout("old")
    builder.opaque("Files/dir")
    archive = builder.finish()
    found = read(archive)
    assert list(found) == [
        *["Files", "Files/a", "Files/a:zone:$DATA", "Files/b", "Files/c", "Files/fifo"],
        *["Files/.wh.old", ".wh.old", "Files/dir/.wh..wh..opq"],
    ]
    assert found["Files"].isdir()
    assert (found["Files/a"].mode, found["Files/a"].uid, found["Files/a"].mtime) == (0o600, 7, 12345)
    assert (found["Files/b"].islnk(), found["Files/b"].linkname) == (True, "Files/a")
    assert (found["Files/c"].issym(), found["Files/c"].linkname) == (True, "a")
    assert found["Files/fifo"].isfifo()
    assert content(archive, "Files/a") == b"x" * 513
    assert content(archive, "Files/a:zone:$DATA") == b"z"


@pytest.mark.parametrize("size", [90, 98, 99, 100, 101, 255, 992, 993, 5000])
def test_long_and_non_ascii_names_become_pax_records(size: int) -> None:
    builder = TarBuilder()
    builder.file("n" * size)
    builder.symlink("ж" * 60, "é" * size)
    found = read(builder.finish())
    assert set(found) == {"n" * size, "ж" * 60}
    assert found["ж" * 60].linkname == "é" * size


@pytest.mark.parametrize("size", range(1, 1100, 7))
def test_pax_record_counts_its_own_length(size: int) -> None:
    record = tars.pax_record("key", "v" * size)
    assert record == b"%d key=%s\n" % (len(record), b"v" * size)


def test_records_of_windows_reach_the_entry() -> None:
    builder = TarBuilder()
    records = windows_pax(
        tars.ATTRIBUTE_HIDDEN,
        sd=b"\1\2\3",
        creation=tars.FILETIME_OF_1970 - 5_000_000,
        mtime=tars.FILETIME_OF_1970 + 15_000_001,
        eas={"A": b"value"},
        mountpoint=True,
    )
    builder.symlink("s", "t", pax=records)
    assert read(builder.finish())["s"].pax_headers == {
        "MSWINDOWS.fileattr": "2",
        "MSWINDOWS.rawsd": "AQID",
        "LIBARCHIVE.creationtime": "-0.5",
        "mtime": "1.5000001",
        "MSWINDOWS.xattr.A": "dmFsdWU=",
        "MSWINDOWS.mountpoint": "1",
    }


def test_global_records_reach_all_entries() -> None:
    builder = TarBuilder()
    builder.pax_global({"comment": "all"})
    builder.file("a")
    builder.file("b", pax={"comment": "own"})
    found = read(builder.finish())
    assert (found["a"].pax_headers["comment"], found["b"].pax_headers["comment"]) == ("all", "own")


def test_old_forms_are_read_back() -> None:
    builder = TarBuilder()
    builder.gnu_long_name("g" * 300)
    builder.gnu_long_link("t" * 300)
    builder.symlink("short", "short", magic=tars.GNU_MAGIC)
    builder.file("name", prefix=b"directory/below")
    builder.file("v7", b"old", magic=tars.V7_MAGIC, kind=tars.V7_FILE)
    builder.file("large", uid=1 << 40, mtime=-1)
    builder.file("sized", b"", pax={"size": "3"})
    builder.raw(tars.padded(b"abc"))
    archive = builder.finish()
    found = read(archive)
    assert found["g" * 300].linkname == "t" * 300
    assert "directory/below/name" in found
    assert content(archive, "v7") == b"old"
    assert (found["large"].uid, found["large"].mtime) == (1 << 40, -1)
    assert content(archive, "sized") == b"abc"


def test_wrong_checksum_can_be_written() -> None:
    builder = TarBuilder()
    builder.file("a", checksum=1)
    with pytest.raises(tarfile.ReadError):
        read(builder.finish())


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        tars.header(b"n" * 101)
    with pytest.raises(ValueError, match="does not fit"):
        tars.octal(8**7, 8)
