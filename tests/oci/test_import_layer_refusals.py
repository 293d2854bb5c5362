"""Layer tars imported, read by an independent reader: refusals."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import FormatError
from support import layers, tars
from support.imports import add, base_tar, fails, imported_base, model, root  # noqa: F401  fixtures
from support.layers import image_of, snapshot
from support.tars import TarBuilder, windows_pax

BAD_NAMES = {
    "parent": ("Files/../x", "component . or .."),
    "parent first": ("../x", "component . or .."),
    "absolute": ("/Files/x", "absolute"),
    "drive": ("C:/x", "drive letter"),
    "drive alone": ("C:", "drive letter"),
    "backslash": ("Files\\x", "backslash"),
    "star": ("Files/a*", "reserved"),
    "question mark": ("Files/?", "reserved"),
    "pipe": ("a|b/x", "reserved"),
    "control": ("Files/a\x1f", "reserved"),
    "component": ("Files/" + "n" * 256, "255"),
    "path": ("/".join(["d" * 200] * 164), "32,767"),
    "longer than the buffer": ("d/" * 70_000 + "x", "32,767"),
    "whole buffer": ("d/" * 16_000 + "e" * 1030 + "/f", "."),
    "colon": ("Files/stream:of nothing", "colon"),
    "stream in the middle": ("Files/a:b/c", "."),
    "whiteout of the parent": ("Files/.wh...", "component . or .."),
    "whiteout above": ("../.wh.x", "component . or .."),
    "whiteout of nothing": ("Files/.wh.", "whiteout of nothing"),
    "whiteout of a stream": ("Files/.wh.a:b", "colon"),
    "opaque above": ("../.wh..wh..opq", "component . or .."),
    "opaque stream": ("a:b/.wh..wh..opq", "."),
    "only a dot": (".", "without a name"),
}


@pytest.mark.parametrize("case", BAD_NAMES)
def test_bad_name_is_refused_and_named(root: Path, case: str) -> None:
    name, reason = BAD_NAMES[case]
    tar = TarBuilder()
    tar.file("Files/before", b"x" * 100)
    tar.pax({"path": name})
    tar.file("cut", b"")
    fails(root, tar, reason, what=name, offset=1024)


@pytest.mark.parametrize(("name", "reason"), [(b"Files/\xff", "UTF-8"), (b"Files/\xc0\xaf", "UTF-8"), (b"a\0b", "NUL")])
def test_name_that_is_no_text_is_refused(root: Path, name: bytes, reason: str) -> None:
    tar = TarBuilder()
    tar.pax({"path": name})
    tar.file("x")
    fails(root, tar, reason, offset=0)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("../../etc/passwd", "component . or .."),
        ("/etc/passwd", "absolute"),
        ("C:/x", "drive letter"),
        ("Files/missing", "does not exist"),
        ("missing/dir/x", "does not exist"),
        ("Files/self", "does not exist"),
        ("Files/a", "directory"),
        ("Files/b/streamed:zone", "colon"),
        ("", "without a target"),
    ],
)
def test_bad_hard_link_is_refused_and_named(root: Path, target: str, reason: str) -> None:
    tar = TarBuilder()
    tar.hardlink("Files/self", target)
    fails(root, tar, reason, what="Files/self", offset=0)


def test_hard_link_in_place_of_a_standard_file_is_refused(root: Path) -> None:
    tar = TarBuilder()
    tar.hardlink("Hives/SYSTEM_delta", "Files/a/f1")
    fails(root, tar, "processed outside", what="Hives/SYSTEM_delta")


def test_file_in_place_of_a_link_to_a_standard_file_is_refused(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/Windows/System32/config/SAM", b"x")
    tar.hardlink("Files/l", "Files/Windows/System32/config/SAM")
    tar.file("Files/L", b"y")
    fails(root, tar, "in place of a hard link", what="Files/L")


SAM = "Files/Windows/System32/config/SAM"


LATER = {
    "below a standard file": lambda tar: tar.file(f"{SAM.lower()}/x"),
    "a directory as a standard file": lambda tar: tar.directory(SAM),
    "a symbolic link as a standard file": lambda tar: tar.symlink(SAM, "x"),
    "a hard link below a standard file": lambda tar: tar.hardlink(f"{SAM}/x", "Files/a/f1"),
    "a file above a standard file": lambda tar: tar.file("files/windows"),
    "a symbolic link above a standard file": lambda tar: tar.symlink("Files/Windows/System32", "x"),
    "below a link": lambda tar: tar.file("Files/New/Link/deep/x"),
    "a directory below a link": lambda tar: tar.directory("Files/New/link/d"),
    "a directory as a link": lambda tar: tar.directory("Files/new/link"),
    "a file above a link": lambda tar: tar.file("files/new"),
    "a hard link above a link": lambda tar: tar.hardlink("Files/new", "Files/a/f1"),
}


@pytest.mark.parametrize("case", LATER)
def test_what_would_be_lost_to_a_pending_file_is_refused(root: Path, case: str) -> None:
    """It comes into the image at the end, over whatever is there by then."""
    tar = TarBuilder()
    tar.file(SAM, b"x")
    tar.hardlink("Files/new/link", SAM)
    LATER[case](tar)
    fails(root, tar, "in place of .* processed outside")


def test_directories_above_pending_files_are_described_at_any_time(root: Path) -> None:
    tar = TarBuilder()
    tar.file(SAM, b"x")
    tar.hardlink("Files/new/link", SAM)
    for path in ("Files/Windows/System32/config", "Files", "Files/new", "Files/Windows/System32/confi"):
        tar.directory(path)
    tar.file("Files/Windows/System32/config/SAM2", b"y")
    tar.file(SAM, b"again")
    add(root, tar)
    image = image_of(root / "child")
    assert (image[r"Files\new\link"].data, image[r"Files\Windows\System32\config\SAM2"].data) == (b"again", b"y")


@pytest.mark.parametrize("hidden", [False, True])
def test_link_to_a_parents_standard_file_is_made_at_once(root: Path, hidden: bool) -> None:
    tar = TarBuilder()
    tar.hardlink("Files/link", SAM)
    if hidden:
        tar.whiteout(SAM)
    else:
        tar.file(SAM, b"new")
    tar.file("Files/link/no longer a link")
    add(root, tar)
    tar = TarBuilder()
    tar.hardlink("Files/link", SAM)
    tar.whiteout(SAM)
    add(root, tar, "other")
    assert image_of(root / "other")[r"Files\link"].data == image_of(root / "base")[SAM.replace("/", "\\")].data
    assert r"Files\link\no longer a link" in image_of(root / "child")


def test_link_to_a_standard_file_that_no_layer_has_is_refused(root: Path) -> None:
    tar = TarBuilder()
    tar.hardlink("Files/link", "Hives/SAM_DELTA")
    fails(root, tar, "does not exist", what="Files/link", offset=0)


def test_stream_on_a_standard_file_is_refused(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/Windows/System32/config/SAM", b"x")
    tar.stream("Files/Windows/System32/config/SAM", "zone", b"y")
    fails(root, tar, "stream on a file that is processed outside")


def test_stream_must_follow_its_file(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/x")
    tar.file("Files/y")
    tar.stream("Files/x", "zone", b"y")
    fails(root, tar, "right before", what="Files/x:zone")


def test_stream_of_another_type_is_refused(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/x")
    tar.stream("Files/x", "zone:$INDEX", b"y")
    fails(root, tar, r"type other than \$DATA", what="Files/x:zone:$INDEX")


def test_streams_of_directories_are_kept(root: Path) -> None:
    tar = TarBuilder()
    tar.directory("Files/dir")
    tar.stream("Files/dir", "zone", b"y" * 1000)
    tar.stream("Files/dir", "other:$DATA", b"")
    add(root, tar)
    assert image_of(root / "child")["Files\\dir"].streams == {"zone": b"y" * 1000, "other": b""}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tars.CHARACTER, "character device"),
        (tars.BLOCK_DEVICE, "block device"),
        (tars.FIFO, "FIFO"),
        (b"S", "sparse"),
    ],
)
def test_special_file_is_refused_and_named(root: Path, kind: bytes, reason: str) -> None:
    tar = TarBuilder()
    tar.file("Files/before")
    tar.node("Files/special", kind)
    fails(root, tar, reason, what="Files/special", offset=512)


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({"MSWINDOWS.rawsd": "!!!!"}, "base64"),
        ({"MSWINDOWS.rawsd": "QUJD"}, "descriptor is malformed"),
        ({"MSWINDOWS.rawsd": "QUFB" * 30_000}, "65,535"),
        ({"MSWINDOWS.sd": "O:??"}, "SDDL"),
        ({"MSWINDOWS.sd": "D:" + "(A;;FA;;;SY)" * 30_000}, "262,144"),
        ({"MSWINDOWS.fileattr": "0x20"}, "attributes"),
        ({"MSWINDOWS.fileattr": "4294967296"}, "attributes"),
        ({"mtime": "soon"}, "time"),
        ({"mtime": "-"}, "time"),
        ({"LIBARCHIVE.creationtime": "1e5"}, "time"),
        ({"size": "-1"}, "size"),
        ({"size": "99999999999999999999"}, "size"),
        ({"MSWINDOWS.xattr.A": "?"}, "base64"),
        ({"MSWINDOWS.xattr." + "n" * 255: "QQ=="}, "254"),
        ({f"MSWINDOWS.xattr.{n}": "QUFB" * 1000 for n in range(40)}, "65,535"),
        ({f"MSWINDOWS.xattr.{n}": "" for n in range(6000)}, "65,535"),
        ({"GNU.sparse.major": "1"}, "sparse"),
    ],
)
def test_bad_record_is_refused_and_named(root: Path, records: dict[str, str], reason: str) -> None:
    tar = TarBuilder()
    tar.file("Files/before")
    tar.file("Files/bad", pax=records)
    error = fails(root, tar, reason)
    assert error.offset == 512
    assert error.what in {"Files/bad", "tar"}


@pytest.mark.parametrize(
    "records", [{"MSWINDOWS.rawsd": "QUJD"}, {"MSWINDOWS.sd": "".join(p + "(A;;FA;;;SY)" * 3000 for p in ("D:", "S:"))}]
)
def test_malformed_descriptor_of_a_standard_file_is_refused_where_it_stands(
    root: Path, records: dict[str, str]
) -> None:
    tar = TarBuilder()
    tar.file("Files/before")
    tar.file("Hives/SYSTEM_Delta", layers.hive(), pax=records)
    fails(root, tar, "descriptor is malformed", what="Hives/SYSTEM_Delta", offset=512)


@pytest.mark.parametrize("body", [b"9 a=b\n", b"x a=b\n", b"6 a=b", b"5 ab\n", b"0 a=b\n", b"9" * 20 + b" a=b\n"])
def test_malformed_records_are_refused(root: Path, body: bytes) -> None:
    tar = TarBuilder()
    tar.file("Files/before")
    tar.pax_raw(body)
    tar.file("Files/x")
    fails(root, tar, "PAX record", offset=512)


def test_wrong_checksum_is_refused_with_its_offset(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/x", b"x" * 600)
    tar.file("Files/y", checksum=1)
    fails(root, tar, "wrong checksum", offset=1536)


def test_archive_that_is_cut_is_an_error_only_inside_an_entry(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/x", b"x" * 600)
    tar.file("Files/y", b"y" * 600, pax=windows_pax(0x20))
    data = tar.finish()
    for cut in (1, 511, 512, 513, 1111, 1112, 1113, 1536, 1537, 2048, 2560, 3000, 3072, 3171, 3672, 3673, 4096, 4608):
        if cut in (1112, 1113, 1536, 3672, 3673, 4096, 4608):
            add(root, data[:cut], f"cut{cut}")
        else:
            in_header = cut in (1, 511, 1537)
            offset = cut if in_header else 0 if cut < 1536 else 1536
            fails(root, data[:cut], "ends inside an entry", offset=offset)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_no_room_for_a_standard_file_names_it(root: Path) -> None:
    code = (
        "import resource, sys, cimlayer\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: cimlayer.import_layer(sys.argv[1], sys.argv[2], [sys.argv[3]], jobs=1)\n"
        "except OSError as error: print(error)"
    )
    tar = TarBuilder()
    tar.file("Hives/SAM_DELTA", bytes(3 << 20))
    (root / "child.tar").write_bytes(tar.finish())
    words = [sys.executable, "-c", code, *map(str, (root / "child.tar", root / "child", root / "base"))]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=True, timeout=60)
    assert str(root / "child" / "Hives" / "SAM_DELTA") in done.stdout


def test_missing_hives_of_a_base_layer_are_named(tmp_path: Path) -> None:
    tar = TarBuilder()
    layers.add_base_hives(tar, leave_out="SAM")
    with pytest.raises(FormatError, match=r"layer base: a base layer without Files\\Windows\\System32\\config\\SAM"):
        cimlayer.import_layer(io.BytesIO(tar.finish()), tmp_path / "base")
    assert list(tmp_path.iterdir()) == []


def test_layer_that_exists_is_left_alone(root: Path) -> None:
    before = snapshot(root)
    with pytest.raises(FileExistsError):
        cimlayer.import_layer(io.BytesIO(base_tar()), root / "base")
    assert snapshot(root) == before


def test_parent_without_an_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cimlayer.import_layer(io.BytesIO(base_tar()), tmp_path / "child", [tmp_path / "base"])
    assert list(tmp_path.iterdir()) == []


def test_link_to_a_standard_file_may_be_deeper_than_the_interpreter_can_recurse(root: Path) -> None:
    path = "/".join(["d"] * 2 * sys.getrecursionlimit())
    tar = TarBuilder()
    tar.file("Files/Windows/System32/config/SAM", bytes(8192))
    tar.hardlink(path, "Files/Windows/System32/config/SAM")
    add(root, tar)
    image = image_of(root / "child")
    assert image[path.replace("/", "\\")].data == bytes(8192)


def test_parents_that_no_entry_describes_are_made(root: Path) -> None:
    tar = TarBuilder()
    tar.file("new/very/deep/file", b"x", mtime=10**9)
    tar.file("Files/a/f1/below a file", b"x")
    add(root, tar)
    image = image_of(root / "child")
    assert image["new\\very\\deep\\file"].data == b"x"
    assert (image["new\\very"].attributes, image["new\\very"].sd) == (0x10, layers.NULL_DACL)
    assert image["Files\\a\\f1"].is_directory
