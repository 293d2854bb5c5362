"""What tars of other writers hold: times beyond all clocks, odd names, sparse files, entries that are no files."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cimlayer
from cimfs_ext.image import ImageWriter
from cimfs_ext.importer import LayerImporter
from cimlayer.errors import FormatError, LimitError, OperationCancelledError
from cimlayer.events import LayerWarning
from cimlayer.image.create import create_image
from cimlayer.image.extract import extract
from support import layers, tars
from support.images import assert_sound, read_files
from support.platforms import examples, posix_only
from support.tars import SPARSE_FORMS, Regions, TarBuilder, sparse_tar

LAST = (1 << 63) - 1
ZERO_TIME = -62135596800  # 0001-01-01, a Go time that was never set


def image(tmp_path: Path, tar: TarBuilder | bytes, name: str = "a") -> cimlayer.ImageReader:
    """A plain tar as an image that was checked."""
    source = tmp_path / f"{name}.tar"
    source.write_bytes(tar if isinstance(tar, bytes) else tar.finish())
    create_image(tmp_path / f"{name}.cim", source, sync=False)
    assert_sound(tmp_path / f"{name}.cim")
    return cimlayer.ImageReader(tmp_path / f"{name}.cim")


def refused(tmp_path: Path, tar: TarBuilder | bytes, reason: str) -> FormatError:
    with pytest.raises(FormatError, match=reason) as caught:
        image(tmp_path, tar)
    assert not (tmp_path / "a.cim").exists()
    return caught.value


# ---- times ----


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (str(ZERO_TIME), 0),
        (f"{ZERO_TIME}.5", 0),
        (str(-(1 << 63)), 0),
        ("-" + "9" * 40, 0),
        ("-11644473600", 0),
        ("-11644473600.0000001", 0),
        ("-11644473599.9999999", 1),
        ("910692730085.4775807", LAST),
        ("910692730086", LAST),
        (str((1 << 63) - 1), LAST),
        ("9" * 40 + ".25", LAST),
    ],
)
def test_times_of_records_are_clamped(tmp_path: Path, text: str, time: int) -> None:
    tar = TarBuilder()
    tar.file("f", pax={"mtime": text, "atime": text, "LIBARCHIVE.creationtime": text})
    with image(tmp_path, tar) as opened:
        entry = opened.stat("f")
    assert (entry.last_write_time, entry.last_access_time, entry.creation_time) == (time, time, time)


@pytest.mark.parametrize(
    ("field", "time"),
    [
        (tars.base256(ZERO_TIME, 12), 0),
        (tars.base256(-(1 << 63), 12), 0),
        (tars.base256(-(1 << 80), 12), 0),
        (tars.base256((1 << 63) - 1, 12), LAST),
        (tars.base256(1 << 80, 12), LAST),
    ],
)
def test_times_of_headers_are_clamped(tmp_path: Path, field: bytes, time: int) -> None:
    tar = TarBuilder()
    tar.file("f", mtime=field)
    tar.file("g", magic=tars.GNU_MAGIC, prefix=field + field)
    with image(tmp_path, tar) as opened:
        assert opened.stat("f").last_write_time == time
        assert (opened.stat("g").last_access_time, opened.stat("g").change_time) == (time, time)


@pytest.mark.parametrize(
    ("field", "access", "change"),
    [(tars.base256(5, 12) + tars.base256(-6, 12), 5, -6), (bytes(12) + tars.octal(6, 12), 1, 6)],
)
def test_times_of_a_gnu_header(tmp_path: Path, field: bytes, access: int, change: int) -> None:
    tar = TarBuilder()
    tar.file("f", magic=tars.GNU_MAGIC, mtime=1, prefix=field)
    with image(tmp_path, tar) as opened:
        entry = opened.stat("f")
    times = (entry.last_write_time, entry.last_access_time, entry.change_time)
    assert [(time - tars.FILETIME_OF_1970) / 10**7 for time in times] == [1, access, change]


# ---- names ----


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        (b"directory", "directory/f"),
        (b"Files/" + b"p" * 60, "Files/" + "p" * 60 + "/f"),
        (b"1234567/x", "1234567/x/f"),
        (tars.octal(5, 12) + tars.octal(5, 12), "f"),
        (b"777", "f"),
        ("ü/x".encode(), "f"),
    ],
)
def test_a_prefix_behind_the_magic_of_gnu_counts_unless_it_could_be_times(
    tmp_path: Path, prefix: bytes, name: str
) -> None:
    tar = TarBuilder()
    tar.file("f", b"1", magic=tars.GNU_MAGIC, prefix=prefix)
    with image(tmp_path, tar) as opened:
        assert opened.read(name) == b"1"


@pytest.mark.parametrize("gnu_first", [False, True])
def test_a_long_name_of_gnu_counts_before_a_record_as_in_go(tmp_path: Path, gnu_first: bool) -> None:
    tar = TarBuilder()
    for gnu in (gnu_first, not gnu_first):
        if gnu:
            tar.gnu_long_name("gnu")
            tar.gnu_long_link("to gnu")
        else:
            tar.pax({"path": "pax", "linkpath": "to pax"})
    tar.symlink("s", "to header")
    with image(tmp_path, tar) as opened:
        assert [entry.name for entry in opened.listdir("")] == ["gnu"]
        assert "to gnu".encode("utf-16-le") in opened.reparse_data("gnu")


@pytest.mark.parametrize("long_name", [False, True])
def test_an_old_file_whose_name_ends_in_a_slash_is_a_directory(tmp_path: Path, long_name: bool) -> None:
    tar = TarBuilder()
    if long_name:
        tar.gnu_long_name("d/")
    tar.file("cut" if long_name else "d/", kind=tars.V7_FILE)
    tar.file("d/f", b"1")
    with image(tmp_path, tar) as opened:
        assert opened.stat("d").is_directory
        assert opened.read("d/f") == b"1"


@pytest.mark.parametrize("name", [b"a/\xff\xfe", b"a/\xc0\xaf", b"\xe4"])
def test_bytes_of_a_name_that_is_not_utf8_are_shown(tmp_path: Path, name: bytes) -> None:
    error = refused(tmp_path, tars.header(name) + bytes(1024), "not UTF-8")
    assert error.what == name.decode("utf-8", "backslashreplace")


def test_bytes_of_a_link_target_that_is_not_utf8_are_shown(tmp_path: Path) -> None:
    tar = tars.header(b"f", kind=tars.HARD_LINK, link=b"g\xff") + bytes(1024)
    error = refused(tmp_path, tar, "link target that is not UTF-8")
    assert error.what == "f"
    assert "g\\xff" in str(error)


# ---- what is no file ----


@pytest.mark.parametrize(
    ("kind", "data", "what"),
    [
        (b"V", b"", "volume label"),
        (b"D", b"Yfile\0Nother\0\0", "list of the files"),
        (b"M", b"m" * 700, "another volume"),
        (b"Z", b"?" * 512, "unknown type"),
        (b"\x80", b"", "unknown type"),
    ],
)
def test_what_is_no_file_is_passed_over_with_a_warning(tmp_path: Path, kind: bytes, data: bytes, what: str) -> None:
    events: list[object] = []
    tar = TarBuilder()
    layers.add_base_hives(tar)
    tar.file("bad\\name*", data, kind=kind)
    tar.file("Files/f", b"1")
    source = io.BytesIO(tar.finish())
    cimlayer.import_layer(source, tmp_path / "layer", sync=False, progress=events.append)
    warnings = [event for event in events if isinstance(event, LayerWarning)]
    assert [warning.layer for warning in warnings] == ["layer"]
    assert "bad\\name*: " in warnings[0].text
    assert what in warnings[0].text
    files = read_files(tmp_path / "cim-layers/layer.cim")
    assert files["Files\\f"] == b"1"
    assert not any("bad" in path for path in files)


def test_create_tells_what_it_passed_over(tmp_path: Path) -> None:
    tar = TarBuilder()
    tar.node("label", b"V")
    (tmp_path / "a.tar").write_bytes(tar.finish())
    done = create_image(tmp_path / "a.cim", tmp_path / "a.tar", sync=False)
    assert done.warnings == ("label: a volume label, passed over",)


def test_entries_that_are_passed_over_count_for_the_limit(tmp_path: Path) -> None:
    tar = TarBuilder()
    for _ in range(3):
        tar.node("label", b"V")
    (tmp_path / "a.tar").write_bytes(tar.finish())
    with pytest.raises(LimitError):
        create_image(tmp_path / "a.cim", tmp_path / "a.tar", sync=False, limits=cimlayer.Limits(files=2))


# ---- sparse files ----


def content(size: int, regions: Regions) -> bytes:
    whole = bytearray(size)
    for start, data in regions:
        whole[start : start + len(data)] = data
    return bytes(whole)


SHAPES: dict[str, tuple[int, Regions]] = {
    "all hole": (100_000, []),
    "empty": (0, []),
    "no hole": (1000, [(0, b"x" * 1000)]),
    "hole first": (5000, [(4000, b"y" * 1000)]),
    "hole last": (70_000, [(0, b"z" * 513)]),
    "small holes": (600, [(n * 20, b"%02d" % n) for n in range(30)]),
    "exactly four": (400, [(n * 100 + 1, b"a") for n in range(3)]),
    "adjacent": (30, [(0, b"ab"), (2, b"cd"), (10, b"e")]),
    "beyond one buffer": (200_000, [(0, b"1"), (150_000, b"2" * 50_000)]),
}


@pytest.mark.parametrize("form", SPARSE_FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sparse_file_is_whole(tmp_path: Path, form: str, shape: str) -> None:
    size, regions = SHAPES[shape]
    with image(tmp_path, sparse_tar(form, size, regions)) as opened:
        assert opened.read("sparse") == content(size, regions)
        assert opened.read("after") == b"after"
        entry = opened.stat("sparse")
        assert entry.attributes == tars.ATTRIBUTE_ARCHIVE | tars.ATTRIBUTE_SPARSE
        assert entry.sparse == (size > 0 and not regions)
        assert [each.name for each in opened.listdir("")] == ["after", "sparse"]


@settings(deadline=None, max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SPARSE_FORMS),
    st.lists(st.tuples(st.integers(0, 900), st.integers(1, 700)), max_size=30),
    st.integers(0, 2000),
    st.integers(1, 700),
)
def test_sparse_file_in_pieces_of_any_size(
    tmp_path: Path, form: str, gaps: list[tuple[int, int]], tail: int, piece: int
) -> None:
    regions, end = [], 0
    for gap, count in gaps:
        regions.append((end + gap, os.urandom(count)))
        end += gap + count
    data = sparse_tar(form, end + tail, regions)
    with ImageWriter(tmp_path, None, "p.cim", sync=False) as writer:
        importer = LayerImporter(writer, object())
        for at in range(0, len(data), piece):
            importer.feed(data[at : at + piece])
        importer.finish()
        writer.commit()
    found = read_files(tmp_path / "p.cim")
    for path in (*tmp_path.glob("*region*"), *tmp_path.glob("objectid*"), tmp_path / "p.cim"):
        path.unlink()
    assert found == {"sparse": content(end + tail, regions), "after": b"after"}


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_hole_of_a_standard_file(tmp_path: Path, form: str) -> None:
    tar = TarBuilder()
    layers.add_base_hives(tar, leave_out="SAM")
    hive = layers.hive()
    regions = [(0, hive)]
    path = "Files/Windows/System32/config/SAM"
    data = tar.finish(end=b"") + sparse_tar(form, len(hive) + 200_000, regions, path)
    cimlayer.import_layer(io.BytesIO(data), tmp_path / "layer", sync=False)
    assert (tmp_path / "layer" / path).read_bytes() == hive + bytes(200_000)


@pytest.mark.parametrize("form", SPARSE_FORMS)
@pytest.mark.parametrize(
    "pairs", [[(10, b"a"), (5, b"b")], [(0, b"ab"), (1, b"c")], [(100, b"a")], [((1 << 63) - 1, b"a")]]
)
def test_map_out_of_order_or_beyond_the_end_is_refused(tmp_path: Path, form: str, pairs: Regions) -> None:
    error = refused(tmp_path, sparse_tar(form, 100, pairs), "malformed map of a sparse file")
    assert error.offset == 0


@pytest.mark.parametrize(
    ("records", "data"),
    [
        ({"GNU.sparse.map": "0,1", "GNU.sparse.size": "x"}, b"a"),
        ({"GNU.sparse.map": "0,1"}, b"a"),
        ({"GNU.sparse.map": "0,1,2", "GNU.sparse.size": "9"}, b"a"),
        ({"GNU.sparse.map": "0,,1", "GNU.sparse.size": "9"}, b"a"),
        ({"GNU.sparse.map": "0,2", "GNU.sparse.size": "9"}, b"a"),
        ({"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}, b"ab"),
        ({"GNU.sparse.offset": "1"}, b"a"),
        ({"GNU.sparse.numbytes": "1"}, b"a"),
        ({"GNU.sparse.major": "2", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, b"a"),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, b""),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, b"1\n0\n"),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, b"1\n0\nx\n" + bytes(600)),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, b"9" * 30 + bytes(600)),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, b"2000000\n" + bytes(600)),
    ],
)
def test_malformed_sparse_file_is_refused(tmp_path: Path, records: dict[str, str], data: bytes) -> None:
    if "GNU.sparse.offset" in records:  # alone it says nothing
        tar = TarBuilder()
        tar.file("f", data, pax=records)
        with image(tmp_path, tar) as opened:
            assert opened.read("f") == data
        return
    tar = TarBuilder()
    tar.file("f", data, pax=records)
    refused(tmp_path, tar, "sparse file")


def test_claimed_size_of_a_sparse_file_counts_for_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(sparse_tar("0.1", 1 << 60, []))
    with pytest.raises(LimitError):
        create_image(tmp_path / "a.cim", tmp_path / "a.tar", sync=False)


def test_large_hole_before_data_can_be_cancelled(tmp_path: Path) -> None:
    """Nothing is read meanwhile, so nothing else would notice."""
    token = cimlayer.CancellationToken()

    class Policy:
        @staticmethod
        def pause() -> None:
            token.cancel()
            token.raise_if_cancelled()

    with ImageWriter(tmp_path, None, "a.cim", sync=False) as writer:
        importer = LayerImporter(writer, Policy())
        with pytest.raises(OperationCancelledError):
            importer.feed(sparse_tar("1.0", 1 << 40, [((1 << 40) - 1, b"x")]))
    assert token.cancelled


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize(
    "form", ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"]
)
def test_sparse_files_of_gnu_tar(tmp_path: Path, form: str) -> None:
    if "GNU" not in subprocess.run(["tar", "--version"], capture_output=True, encoding="utf-8", check=True).stdout:
        pytest.skip("needs GNU tar")
    folder = holes(tmp_path)
    words = ["tar", "--sparse", form if "gnu" in form else f"--format=posix {form}"]
    subprocess.run([*" ".join(words).split(), "-C", folder, "-cf", tmp_path / "a.tar", "."], check=True)
    with image(tmp_path, (tmp_path / "a.tar").read_bytes()) as opened:
        for path in folder.iterdir():
            assert opened.read(path.name) == path.read_bytes()


def holes(tmp_path: Path) -> Path:
    """A folder of files with holes, as far as the filesystem has any."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, size, regions in (
        ("whole", 1 << 20, []),
        ("middle", 1 << 20, [(0, b"start"), (700_000, b"end")]),
        ("many", 1 << 20, [(n << 14, b"x" * 5000) for n in range(50)]),
        ("none", 10, [(0, b"0123456789")]),
        ("empty", 0, []),
    ):
        with (folder / name).open("wb") as file:
            for start, data in regions:
                file.seek(start)
                file.write(data)
            file.truncate(size)
    return folder


@posix_only("the blocks of a file")
def test_holes_of_a_folder_stay_holes(tmp_path: Path) -> None:
    folder = holes(tmp_path)
    create_image(tmp_path / "a.cim", folder, sync=False)
    assert_sound(tmp_path / "a.cim")
    has_holes = (folder / "whole").stat().st_blocks == 0
    with cimlayer.ImageReader(tmp_path / "a.cim") as opened:
        for path in folder.iterdir():
            assert opened.read(path.name) == path.read_bytes()
        assert opened.stat("whole").sparse == has_holes
        assert not opened.stat("none").attributes & tars.ATTRIBUTE_SPARSE
        extract(opened, "", tmp_path / "out")
    if has_holes:
        assert (tmp_path / "out/whole").stat().st_blocks == 0
        assert (tmp_path / "out/middle").stat().st_blocks * 512 < 1 << 20


# ---- as Microsoft's tools write them ----


@pytest.mark.parametrize("slash", ["", "/"])
def test_streams_of_a_directory_whose_name_has_a_slash(tmp_path: Path, slash: str) -> None:
    tar = TarBuilder()
    tar.directory("Files/d")
    tar.file(f"Files/d{slash}:s:$DATA", b"1")
    tar.file(f"Files/d{slash}:t", b"22")
    tar.node("Files/e\\", tars.DIRECTORY)
    with image(tmp_path, tar) as opened:
        assert opened.read("Files/d", "s") == b"1"
        assert opened.read("Files/d", "t") == b"22"
        assert opened.stat("Files/e").is_directory


@pytest.mark.parametrize("name", [":s", "/:s", "Files/:s/x", "Files/d\\e\\"])
def test_colons_and_backslashes_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    tar = TarBuilder()
    tar.directory("Files")
    tar.file(name, b"1")
    refused(tmp_path, tar, ".")


def round_trip(tmp_path: Path, tar: TarBuilder) -> dict[str, bytes]:
    """A base layer imported, exported, imported again; both times with the same files."""
    cimlayer.import_layer(io.BytesIO(tar.finish()), tmp_path / "first", sync=False)
    cimlayer.export_layer(tmp_path / "first", [], tmp_path / "out.tar")
    cimlayer.import_layer(tmp_path / "out.tar", tmp_path / "second", sync=False)
    found = [read_files(tmp_path / f"cim-layers/{name}.cim") for name in ("first", "second")]
    assert found[0] == found[1]
    return found[0]


def test_base_image_of_host_processes_makes_the_round_trip(tmp_path: Path) -> None:
    """Five hives of 0 bytes, as in Microsoft's image, and the licence."""
    tar = TarBuilder()
    for directory in ("Files", "Files/Windows", "Files/Windows/System32", "Files/Windows/System32/config"):
        tar.directory(directory)
    for name in ("DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM"):
        tar.file(f"Files/Windows/System32/config/{name}")
    tar.file("Files/License.txt", b"licence")
    found = round_trip(tmp_path, tar)
    assert found["Files\\License.txt"] == b"licence"
    assert found["Hives\\SYSTEM_BASE"] == b""


def test_base_layer_of_a_build_tool_makes_the_round_trip(tmp_path: Path) -> None:
    """Empty hives and the BCD of a utility VM that is not there, as imgutil makes a scratch base."""
    tar = TarBuilder()
    for name in ("DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM"):
        tar.file(f"Files/Windows/System32/config/{name}", kind=tars.V7_FILE, mtime=tars.base256(ZERO_TIME, 12))
    tar.file("UtilityVM/Files/EFI/Microsoft/Boot/BCD", b"")
    found = round_trip(tmp_path, tar)
    assert found["UtilityVM\\Files\\EFI\\Microsoft\\Boot\\BCD"] == b""
