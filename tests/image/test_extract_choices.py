"""What extract takes of an image, and what it does to files that exist."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

import cimlayer
from cimlayer import FilesProgress
from cimlayer.errors import PathNotFoundError
from cimlayer.host import beneath
from cimlayer.image import entrynames
from cimlayer.image.create import create_image
from support.extractions import DIRECTORY, extracted, tree
from support.image_layers import MOUNT_POINT, link_data
from support.images import TIME, add, make_image, writer
from support.platforms import HAS_SYMLINKS, needs_symlinks, posix_only

VOLUME = r"\??\Volume{01234567-89ab-cdef-0123-456789abcdef}"
FILES = {
    "Files": None,
    r"Files\Windows": None,
    r"Files\Windows\a.dll": b"a",
    r"Files\Windows\b.exe": b"b",
    r"Files\Users": None,
    r"Files\Users\c.DLL": b"c",
    "Hives": None,
    r"Hives\x": b"x",
    "[odd].dll": b"odd",
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    with writer(tmp_path, None, "image.cim") as writing:
        for path, data in FILES.items():
            add(writing, path, data or b"", attributes=DIRECTORY if data is None else 0, last_write_time=TIME)
        writing.commit()
    return tmp_path / "image.cim"


@pytest.mark.parametrize(
    ("paths", "options", "expected"),
    [
        (["files/windows", "hives"], {}, ["Files/Windows/a.dll", "Files/Windows/b.exe", "Hives/x"]),
        (["*.dll"], {}, ["Files/Users/c.DLL", "Files/Windows/a.dll", "[odd].dll"]),
        (["[odd].dll"], {}, ["[odd].dll"]),
        (
            ["Files", "Files/Windows", r"Files\Users\c.dll"],
            {"strip": 1},
            ["Users/c.DLL", "Windows/a.dll", "Windows/b.exe"],
        ),
        (["Files/*/*.exe"], {"strip": 2}, ["b.exe"]),
        ([""], {"strip": 2}, ["a.dll", "b.exe", "c.DLL"]),
        (["", "Hives"], {"exclude": ["Windows", "/Hives/"]}, ["Files/Users/c.DLL", "[odd].dll"]),
        (["Files"], {"exclude": ["*.exe"]}, ["Users/c.DLL", "Windows/a.dll"]),
    ],
)
def test_paths_patterns_and_what_is_left_out(
    tmp_path: Path, image: Path, paths: list[str], options: dict[str, object], expected: list[str]
) -> None:
    with cimlayer.ImageReader(image) as reader:
        path = paths[0] if len(paths) == 1 else paths
        done = cimlayer.extract(reader, path, tmp_path / "out", **options)  # type: ignore[arg-type]
    found = tree(tmp_path / "out")
    assert [name for name, data in found.items() if data is not None] == expected
    assert done.files == len(expected)
    assert done.directories == len(found) - len(expected)


def test_a_pattern_that_nothing_matches_is_named(tmp_path: Path, image: Path) -> None:
    with pytest.raises(PathNotFoundError, match="matches") as caught:
        extracted(image, tmp_path / "out", "*.nothing")
    assert caught.value.filename == "*.nothing"
    assert not (tmp_path / "out").exists()


def test_existing_files_are_refused_overwritten_or_skipped_if_whole(tmp_path: Path, image: Path) -> None:
    out = tmp_path / "out"
    extracted(image, out)
    whole = tree(out)
    with pytest.raises(FileExistsError):
        extracted(image, out)
    (out / "Files/Windows/a.dll").write_bytes(b"edited")
    (out / "Files/Windows/b.exe").write_bytes(b"")
    (out / "Hives/x").unlink()
    inode = (out / "Files/Users/c.DLL").stat().st_ino
    done = extracted(image, out, existing="skip")
    assert tree(out) == whole
    assert (done.skipped, done.files, done.bytes) == (2, 3, 3)
    assert (out / "Files/Users/c.DLL").stat().st_ino == inode
    (out / "Files/Windows/a.dll").write_bytes(b"edited")
    assert extracted(image, out, existing="overwrite").files == 5
    assert tree(out) == whole
    with pytest.raises(ValueError, match="not 'keep'"):
        extracted(image, out, existing="keep")


@needs_symlinks
@pytest.mark.parametrize("existing", ["skip", "overwrite"])
def test_what_is_replaced_is_not_followed(tmp_path: Path, image: Path, existing: str) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/[odd].dll").symlink_to(tmp_path / "precious")
    (tmp_path / "out/other").symlink_to("[odd].dll")
    extracted(image, tmp_path / "out", existing=existing)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "out/[odd].dll").is_symlink()


@pytest.mark.parametrize("existing", ["skip", "overwrite"])
def test_a_directory_in_the_place_of_a_file_is_not_replaced(tmp_path: Path, image: Path, existing: str) -> None:
    (tmp_path / "full/[odd].dll").mkdir(parents=True)
    with pytest.raises((IsADirectoryError, PermissionError)) as caught:  # as the system calls it
        extracted(image, tmp_path / "full", existing=existing)
    assert Path(caught.value.filename) == tmp_path / "full/[odd].dll"
    assert (tmp_path / "full/[odd].dll").is_dir()


@pytest.mark.parametrize("existing", ["skip", "overwrite"])
def test_hard_links_that_exist_are_kept_or_replaced(tmp_path: Path, existing: str) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "a", b"content", last_write_time=TIME)
        image.create_hard_link("b", "a")
        image.commit()
    out = tmp_path / "out"
    extracted(tmp_path / "image.cim", out)
    for _ in range(2):
        extracted(tmp_path / "image.cim", out, existing=existing)
        assert (out / "a").samefile(out / "b")
        assert sorted(os.listdir(out)) == ["a", "b"]
        (out / "b").unlink()
        (out / "b").write_bytes(b"other")


@needs_symlinks
@pytest.mark.parametrize("existing", ["skip", "overwrite"])
def test_symbolic_links_that_exist_are_kept_or_replaced(tmp_path: Path, existing: str) -> None:
    image = make_image(tmp_path, "image.cim", {"a": b"content"})
    with writer(tmp_path, image.name, "links.cim") as links:
        add(links, "link", reparse_data=link_data("a"))
        links.commit()
    out = tmp_path / "out"
    extracted(tmp_path / "links.cim", out, symlinks=True, metadata="none")
    for _ in range(2):
        extracted(tmp_path / "links.cim", out, symlinks=True, metadata="none", existing=existing)
        assert (out / "link").readlink() == Path("a")
        assert sorted(os.listdir(out)) == ["a", "link"]
        (out / "link").unlink()
        (out / "link").symlink_to("elsewhere")


def test_large_files_have_another_name_until_they_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(tmp_path, "image.cim", {"large": os.urandom(1 << 20)})
    region = next(path for path in tmp_path.glob("region_*_*") if path.stat().st_size > 1 << 20)
    data = bytearray(region.read_bytes())
    data[-1000] ^= 1
    region.write_bytes(data)
    with pytest.raises(cimlayer.CorruptImageError):
        extracted(image, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_more_links_than_the_host_has_go_on_with_the_newest_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "a0", b"content")
        for number in range(1, 7):
            image.create_hard_link(f"a{number}", "a0")
        image.commit()
    real = beneath.link

    def link(name: bytes, directory: int, new_name: bytes, new_directory: int) -> None:
        if beneath.status(name, directory).st_nlink >= 3:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        real(name, directory, new_name, new_directory)

    monkeypatch.setattr(beneath, "link", link)
    done = extracted(tmp_path / "image.cim", tmp_path / "out")
    counts = [(tmp_path / "out" / f"a{number}").stat().st_nlink for number in range(7)]
    assert counts == [3, 3, 3, 3, 3, 3, 1]
    assert done.hard_links == 6


def test_hard_links_that_became_copies_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "a", b"content", attributes=0x20)
        image.create_hard_link("b", "a")
        image.commit()

    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENXIO, "an error that nobody expects")

    monkeypatch.setattr(beneath, "link", refuse)
    done = extracted(tmp_path / "image.cim", tmp_path / "out")
    assert done.lost == {"hard_links": 1}
    assert tree(tmp_path / "out") == {"a": b"content", "b": b"content"}


def test_what_is_lost_is_counted_by_kind(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "plain", b"x", attributes=0x20)
        add(image, "d", attributes=DIRECTORY)
        add(image, "hidden", b"x", attributes=0x22, creation_time=5)
        image.create_alternate_stream("hidden:one", 0)
        image.create_alternate_stream("hidden:two", 0)
        add(image, "tagged", attributes=0x20, extended_attributes=b"\0\0\0\0\0\1\2\0E\0ab\0")
        add(image, "link", attributes=0x20, reparse_data=link_data("plain"))
        image.commit()
    lost = {"attributes": 1, "times": 1, "streams": 2, "extended_attributes": 1}
    plain = extracted(tmp_path / "image.cim", tmp_path / "one", metadata="none")
    assert plain.lost == lost | {"reparse_data": 1}
    links = extracted(tmp_path / "image.cim", tmp_path / "two", symlinks=True, metadata="none")
    assert links.lost == lost | ({} if HAS_SYMLINKS else {"reparse_data": 1})
    assert extracted(tmp_path / "image.cim", tmp_path / "three", metadata="sidecar").lost == {}


@needs_symlinks
def test_a_plain_folder_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder/d").mkdir(parents=True)
    (tmp_path / "folder/d/a").write_bytes(b"x")
    (tmp_path / "folder/link").symlink_to("d/a")
    os.link(tmp_path / "folder/d/a", tmp_path / "folder/b")
    create_image(tmp_path / "image.cim", tmp_path / "folder", sync=False)
    assert extracted(tmp_path / "image.cim", tmp_path / "out", symlinks=True).lost == {}


def leading(path: str, data: bytes, target: str) -> ParameterSet:
    return pytest.param(path, data, target, marks=needs_symlinks)


@pytest.mark.parametrize(
    ("path", "data", "target"),
    [
        leading(r"Files\l", link_data(r"\??\C:\WINDOWS\a.dll", relative=False), "Windows/a.dll"),
        leading(r"Files\Users\l", link_data(r"\??\C:\Windows", tag=MOUNT_POINT), "../Windows"),
        leading(r"Files\Users\l", link_data(r"\Users\..\Windows"), "../Windows"),
        leading(
            r"Files\l",
            link_data(rf"\??\Volume{{{'0' * 8}-{'0' * 4}-{'0' * 4}-{'0' * 4}-{'0' * 12}}}\x", tag=MOUNT_POINT),
            "x",
        ),
        leading("l", link_data(r"\??\D:\Hives\x", relative=False), "Hives/x"),
        leading("l", link_data("C:\\", relative=False), "."),
        (r"Files\l", link_data(r"\??\UNC\server\share", relative=False), None),
        (r"Files\l", link_data(r"\\server\share"), None),
    ],
)
def test_absolute_links_are_rebased(tmp_path: Path, path: str, data: bytes, target: str | None) -> None:
    make_image(tmp_path, "base.cim", FILES)
    with writer(tmp_path, "base.cim", "image.cim") as image:
        add(image, path, reparse_data=data)
        image.commit()
    done = extracted(tmp_path / "image.cim", tmp_path / "out", rebase=True, metadata="none")
    link = tmp_path / "out" / path.replace("\\", "/")
    assert (link.readlink().as_posix() if link.is_symlink() else None) == target
    assert done.unresolved_links == ([] if target else [path])
    if target and path.startswith("Files"):
        extracted(tmp_path / "image.cim", tmp_path / "files", "Files", rebase=True, metadata="none")
        link = tmp_path / "files" / path.removeprefix("Files\\").replace("\\", "/")
        assert link.readlink().as_posix() == target


def test_a_link_out_of_what_is_extracted_is_not_rebased(tmp_path: Path) -> None:
    make_image(tmp_path, "base.cim", FILES)
    with writer(tmp_path, "base.cim", "image.cim") as image:
        add(image, r"Hives\l", reparse_data=link_data(r"C:\Files", relative=False))
        image.commit()
    done = extracted(tmp_path / "image.cim", tmp_path / "out", "Hives", rebase=True, metadata="none")
    assert done.unresolved_links == [r"Hives\l"]


@posix_only("names that are counted in bytes")
def test_names_are_shortened_only_if_the_host_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(tmp_path, "image.cim", {"n" * 200: b"1", "m" * 140: b"2"})
    assert extracted(image, tmp_path / "whole").renamed == {}
    real = os.stat

    def stat(path: bytes, **options: object) -> os.stat_result:
        if isinstance(path, bytes) and len(path) > 143:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(entrynames.os, "stat", stat)
    monkeypatch.setattr(entrynames.os, "fpathconf", lambda _fd, _name: 143)
    done = extracted(image, tmp_path / "short")
    assert list(done.renamed) == ["n" * 200]
    assert {len(name) for name in os.listdir(tmp_path / "short")} == {143, 140}


@posix_only("volumes without the metadata of Windows")
def test_native_metadata_needs_ntfs(tmp_path: Path, image: Path) -> None:
    with pytest.raises(OSError, match="not on NTFS") as caught:
        extracted(image, tmp_path / "new/out", metadata="native")
    assert caught.value.filename == str(tmp_path / "new/out")
    assert not (tmp_path / "new").exists()


def test_progress_ends_with_all_of_it(tmp_path: Path, image: Path) -> None:
    events: list[object] = []
    extracted(image, tmp_path / "out", progress=events.append)
    assert events[-1] == FilesProgress("image.cim", 5, 7)
