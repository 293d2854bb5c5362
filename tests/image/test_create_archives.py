"""Images of ZIPs and packages; forks, root directories and descriptors of what has none."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import FormatError, LimitError
from cimlayer.formats.sddl import descriptor_from_sddl
from support.commands import call, succeed
from support.images import NULL_DACL, make_image, names_in, read_files, read_tree

SDDL = "O:SYG:SYD:(A;;FA;;;WD)"
IDENTITY = '<Identity Name="App" Version="1.2.3.4" Publisher="CN=x" ProcessorArchitecture="x64"/>'
FULL_NAME = "App_1.2.3.4_x64__rdaxgrpynd4zp"
NTFS_TIMES = (133_000_000_000_000_001, 133_000_000_000_000_002, 133_000_000_000_000_003)  # write, access, creation


def create(root: Path, source: Path, **options: object) -> Path:
    cimlayer.create_image(root / "images" / "image.cim", source, sync=False, **options)  # type: ignore[arg-type]
    return root / "images" / "image.cim"


def member(name: str, *, system: int = 3, attributes: int = 0, extra: bytes = b"") -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (2020, 2, 3, 4, 5, 6))
    info.create_system, info.external_attr, info.extra = system, attributes, extra
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def package(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("AppxManifest.xml", f"<Package>{IDENTITY}</Package>")
        archive.writestr("AppxBlockMap.xml", "<BlockMap/>")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_zip_keeps_what_it_has(tmp_path: Path) -> None:
    ntfs = struct.pack("<HHIHH3Q", 0x000A, 32, 0, 1, 24, *NTFS_TIMES)
    unix = struct.pack("<HHBi", 0x5455, 5, 1, 1_600_000_001)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr(member("d/"), b"")
        archive.writestr(member("d/file", attributes=(stat.S_IFREG | 0o644) << 16, extra=unix), b"content" * 1000)
        archive.writestr(member("d/fixed", attributes=(stat.S_IFREG | 0o444) << 16), b"x")
        archive.writestr(member("hidden", system=0, attributes=0x22, extra=ntfs), b"")
        archive.writestr(member("from\\windows", system=0), b"y")
        archive.writestr(member("link", attributes=(stat.S_IFLNK | 0o777) << 16), b"d/file")
    tree = read_tree(create(tmp_path, tmp_path / "zip"))
    assert set(tree) == {"d", "d\\file", "d\\fixed", "hidden", "from", "from\\windows", "link"}
    assert tree["d\\file"].data == b"content" * 1000
    assert tree["d\\file"].times[1] == 116_444_736_000_000_000 + 1_600_000_001 * 10_000_000
    assert [tree[path].attributes for path in ("d\\file", "d\\fixed", "hidden")] == [0x20, 0x21, 0x22]
    write, access, creation = NTFS_TIMES
    assert tree["hidden"].times == (creation, write, write, access)
    assert tree["link"].attributes & 0x400
    assert cimlayer.parse_reparse_data(tree["link"].reparse_data).target == "d\\file"


def test_package_lies_in_a_directory_with_its_full_name(tmp_path: Path) -> None:
    source = package(tmp_path / "app.msix", {"VFS/a%20b/%40x.txt": b"hello", "[Content_Types].xml": b"<Types/>"})
    image = create(tmp_path, source, root_directory="apps", security_descriptor=SDDL)
    tree = read_tree(image)
    assert {name for name, node in tree.items() if not node.is_directory} == {
        f"apps\\{FULL_NAME}\\{name}"
        for name in ("AppxManifest.xml", "AppxBlockMap.xml", "[Content_Types].xml", "VFS\\a b\\@x.txt")
    }
    assert {node.security_descriptor for node in tree.values()} == {descriptor_from_sddl(SDDL)}


def test_bundle_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "app.msixbundle", "w") as archive:
        archive.writestr("AppxMetadata/AppxBundleManifest.xml", "<Bundle/>")
    with pytest.raises(FormatError, match="a bundle of packages"):
        create(tmp_path, tmp_path / "app.msixbundle")


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("../x", 0, "x"),
        ("/x", 0, "an absolute name"),
        ("a:b", 0, "a colon in a name"),
        ("pipe", (stat.S_IFIFO | 0o644) << 16, "neither file nor directory nor symbolic link"),
        ("link", (stat.S_IFLNK | 0o777) << 16, "a link target that is not UTF-8"),
    ],
)
def test_unsuitable_entry_is_named_and_leaves_nothing(tmp_path: Path, name: str, attributes: int, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr(member("good"), b"x")
        archive.writestr(member(name, attributes=attributes), b"\xff")
    with pytest.raises(FormatError, match=message) as caught:
        create(tmp_path, tmp_path / "zip")
    assert name.strip("/.") in str(caught.value)
    assert caught.value.offset is None
    assert names_in(tmp_path) == ["zip"]


def test_damaged_content_names_the_entry(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("file", b"content")
    data = (tmp_path / "zip").read_bytes()
    (tmp_path / "zip").write_bytes(data.replace(b"content", b"cOntent"))
    with pytest.raises(FormatError, match=r"^file: its content cannot be read"):
        create(tmp_path, tmp_path / "zip")
    (tmp_path / "zip").write_bytes(data[:-30])
    with pytest.raises(FormatError, match="a malformed ZIP"):
        create(tmp_path, tmp_path / "zip")


def test_encrypted_entry_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("file", b"content")
    data = bytearray((tmp_path / "zip").read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "zip").write_bytes(data)
    with pytest.raises(FormatError, match=r"^file: it is encrypted"):
        create(tmp_path, tmp_path / "zip")


@pytest.mark.parametrize(
    ("limits", "limit"), [({"files": 1}, "files"), ({"bytes": 1000}, "bytes"), ({"ratio": 2}, "ratio")]
)
def test_zip_bombs_are_limited(tmp_path: Path, limits: dict[str, int], limit: str) -> None:
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(65 << 20))
        archive.writestr("b", b"")
    with pytest.raises(LimitError) as caught:
        create(tmp_path, tmp_path / "zip", limits=cimlayer.Limits(**limits))
    assert caught.value.limit == limit
    assert names_in(tmp_path) == ["zip"]


def test_case_and_patterns_are_those_of_a_tar(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        for name in ("a", "A", "d/x.log", "d/y"):
            archive.writestr(name, name)
    with pytest.raises(FormatError, match="one name for Windows"):
        create(tmp_path, tmp_path / "zip")
    files = read_files(create(tmp_path, tmp_path / "zip", case_rename=True, exclude=["*.log"]))
    assert {name for name, data in files.items() if data is not None} == {"A", "a~2", "d\\y"}


# ---- what all sources have ----


@pytest.fixture(params=["folder", "tar", "zip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file ``d/f`` with content."""
    path = tmp_path / "source"
    if request.param == "folder":
        (path / "d").mkdir(parents=True)
        (path / "d/f").write_bytes(b"content")
    elif request.param == "tar":
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo("d/f")
            info.size = 7
            archive.addfile(info, io.BytesIO(b"content"))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("d/f", b"content")
    return path


def test_everything_can_lie_below_a_directory(tmp_path: Path, source: Path) -> None:
    image = create(tmp_path, source, root_directory="/one/two\\")
    assert read_files(image) == {"one": None, "one\\two": None, "one\\two\\d": None, "one\\two\\d\\f": b"content"}


@pytest.mark.parametrize("directory", ["..", "a:b", "a/../b"])
def test_root_directory_that_windows_has_not_is_refused(tmp_path: Path, source: Path, directory: str) -> None:
    with pytest.raises(FormatError):
        create(tmp_path, source, root_directory=directory)
    assert names_in(tmp_path) == ["source"]


def test_descriptor_is_that_of_what_has_none(tmp_path: Path, source: Path) -> None:
    tree = read_tree(create(tmp_path, source, security_descriptor=SDDL, metadata="none"))
    assert {node.security_descriptor for node in tree.values()} == {descriptor_from_sddl(SDDL)}
    with pytest.raises(ValueError, match="SDDL"):
        cimlayer.create_image(tmp_path / "images/other.cim", source, security_descriptor="nonsense")


def test_fork_has_what_its_parent_has(tmp_path: Path, source: Path) -> None:
    parent = make_image(tmp_path, "parent.cim", {"d": None, "d\\f": b"old", "d\\g": b"kept"})
    size = len(names_in(tmp_path))
    done = cimlayer.create_image(tmp_path / "child.cim", source, parent=parent, sync=False)
    assert done.bytes == 7
    assert read_files(tmp_path / "child.cim") == {"d": None, "d\\f": b"content", "d\\g": b"kept"}
    assert read_files(parent)["d\\f"] == b"old"
    assert len(names_in(tmp_path)) > size
    with cimlayer.ImageReader(tmp_path / "child.cim") as child, cimlayer.ImageReader(parent) as reader:
        assert child.is_fork_of(reader)


def test_parent_must_be_there_and_beside_it(tmp_path: Path, source: Path) -> None:
    parent = make_image(tmp_path, "parent.cim", {"a": b""})
    with pytest.raises(ValueError, match="must lie in the directory of the new image"):
        create(tmp_path, source, parent=parent)
    with pytest.raises(cimlayer.ImageNotFoundError):
        create(tmp_path, source, parent=tmp_path / "images" / "none.cim")
    assert "images" not in names_in(tmp_path)


def test_command_has_the_options(tmp_path: Path, source: Path) -> None:
    parent = make_image(tmp_path, "parent.cim", {"a": b"x"})
    options = ["--parent", parent, "--root-directory", "r", "--security-descriptor", SDDL, "--metadata", "none"]
    succeed("create", tmp_path / "child.cim", source, *options, "--no-sync")
    tree = read_tree(tmp_path / "child.cim")
    assert set(tree) == {"a", "r", "r\\d", "r\\d\\f"}
    assert (tree["a"].security_descriptor, tree["r\\d\\f"].security_descriptor) == (
        NULL_DACL,
        descriptor_from_sddl(SDDL),
    )
    result = call("create", tmp_path / "other.cim", source, "--wim-image", "1")
    assert (result.exit_code, "not a WIM" in result.stderr) == (1, True)
