"""What create takes, renames, leaves out and refuses, of folders and of tars alike."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cimlayer import FilesProgress
from cimlayer.errors import FormatError
from cimlayer.image.create import create_image
from support.images import names_in, read_files
from support.platforms import WINDOWS, posix_only

Source = Callable[[Path, Mapping[str, bytes]], Path]


def folder_of(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root / "source"


def tar_of(root: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(root / "source.tar", "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return root / "source.tar"


both = pytest.mark.parametrize("source", [folder_of, tar_of])
both_with_any_name = pytest.mark.parametrize(
    "source", [pytest.param(folder_of, marks=posix_only("names and files that Windows does not have")), tar_of]
)
CLASHING = {"A/File.txt": b"1", "A/file.TXT": b"2", "a/x": b"3", "A/file~2.TXT": b"4"}


@both_with_any_name
def test_names_that_differ_in_case_only_are_refused(tmp_path: Path, source: Source) -> None:
    made = source(tmp_path, {"d/Name": b"1", "d/nAME": b"2"})
    with pytest.raises(FormatError, match="'Name' and 'nAME' are one name for Windows") as caught:
        create_image(tmp_path / "images/a.cim", made, sync=False)
    assert "nAME" in str(caught.value.what)
    assert not (tmp_path / "images").exists()


@both_with_any_name
def test_names_that_differ_in_case_only_get_numbers(tmp_path: Path, source: Source) -> None:
    done = create_image(tmp_path / "a.cim", source(tmp_path, CLASHING), case_rename=True, sync=False)
    assert done.renamed["a"] == "a~2" if "a" in done.renamed else done.renamed["a/x"] == "a~2/x"
    files = {name: data for name, data in read_files(tmp_path / "a.cim").items() if data is not None}
    assert sorted(files.values()) == [b"1", b"2", b"3", b"4"]
    assert files[r"A\File.txt"] == b"1"
    assert files[r"a~2\x"] == b"3"
    assert len({name.upper() for name in files}) == 4


def test_hard_links_and_streams_follow_what_was_renamed(tmp_path: Path) -> None:
    made = tar_of(tmp_path, {"N": b"1", "n": b"2", "n:zone": b"stream"})
    with tarfile.open(made, "a") as tar:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.LNKTYPE, "n"
        tar.addfile(member)
    create_image(tmp_path / "a.cim", made, case_rename=True, sync=False)
    assert read_files(tmp_path / "a.cim") == {"N": b"1", "n~2": b"2", "link": b"2"}


@both_with_any_name
def test_what_is_excluded_is_left_out_with_all_below(tmp_path: Path, source: Source) -> None:
    made = source(tmp_path, {"a/keep.txt": b"1", "a/x.log": b"2", "b/c/d": b"3", "a:b": b"4", "keep.log": b"5"})
    patterns = ["*.LOG", "!keep.log", "b", "a[:]b"]
    done = create_image(tmp_path / "a.cim", made, exclude=patterns, sync=False)
    files = {name for name, data in read_files(tmp_path / "a.cim").items() if data is not None}
    assert files == {r"a\keep.txt", "keep.log"}
    assert done.excluded >= 3 - (source is tar_of)


@posix_only("FIFOs")
def test_what_is_excluded_is_not_even_read(tmp_path: Path) -> None:
    made = folder_of(tmp_path, {"a": b"1"})
    os.mkfifo(made / "pipe")
    create_image(tmp_path / "a.cim", made, exclude=["pipe"], sync=False)
    assert read_files(tmp_path / "a.cim") == {"a": b"1"}


def with_specials(root: Path) -> Path:
    made = folder_of(root, {"a": b"1", "b:c": b"2", "d\\e": b"3"})
    os.mkfifo(made / "pipe")
    (made / os.fsdecode(b"\xff")).touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(made / "s"))
    return made


@posix_only("names and files that Windows does not have")
def test_unsuitable_entries_of_a_folder_are_skipped_when_asked(tmp_path: Path) -> None:
    done = create_image(tmp_path / "a.cim", with_specials(tmp_path), skip_special=True, sync=False)
    assert read_files(tmp_path / "a.cim") == {"a": b"1"}
    reasons = [text.rpartition(": ")[2] for text in done.skipped]
    assert len(reasons) == 5
    assert any("socket" in reason for reason in reasons) and any("FIFO" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("device", tarfile.CHRTYPE, "a character device"),
        ("disk", tarfile.BLKTYPE, "a block device"),
        ("pipe", tarfile.FIFOTYPE, "a FIFO"),
        ("a\\b", tarfile.REGTYPE, "a backslash in a name"),
        ("no file:stream", tarfile.REGTYPE, "a colon in a name"),
        ("/rooted", tarfile.REGTYPE, "an absolute name"),
        ("n" * 300, tarfile.REGTYPE, "255"),
    ],
)
def test_unsuitable_entries_of_a_tar_stop_it_or_are_skipped(
    tmp_path: Path, name: str, kind: bytes, reason: str
) -> None:
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for member in (tarfile.TarInfo("before"), tarfile.TarInfo(name), tarfile.TarInfo("after")):
            member.type = kind if member.name == name else tarfile.REGTYPE
            tar.addfile(member)
    with pytest.raises(FormatError, match=reason):
        create_image(tmp_path / "a.cim", tmp_path / "t.tar", sync=False)
    assert names_in(tmp_path) == ["t.tar"]
    done = create_image(tmp_path / "a.cim", tmp_path / "t.tar", skip_special=True, sync=False)
    assert set(read_files(tmp_path / "a.cim")) == {"before", "after"}
    (skipped,) = done.skipped
    assert reason in skipped


@both
def test_progress_ends_with_all_of_it(tmp_path: Path, source: Source) -> None:
    events: list[object] = []
    create_image(tmp_path / "a.cim", source(tmp_path, {"a": b"123", "b": b"45"}), progress=events.append, sync=False)
    assert events[-1] == FilesProgress("a.cim", 2, 5)


def test_a_folder_of_one_hole_and_one_that_begins_with_zeros(tmp_path: Path) -> None:
    made = folder_of(tmp_path, {"zeros first": bytes(100_000) + b"end"})
    with (made / "hole").open("wb") as file:
        file.truncate(1 << 20)
    with (made / "middle").open("wb") as file:
        file.write(b"begin")
        file.truncate(1 << 20)
    create_image(tmp_path / "a.cim", made, sync=False)
    files = read_files(tmp_path / "a.cim")
    assert files == {path.name: path.read_bytes() for path in made.iterdir()}
    stored = sum(path.stat().st_size for path in tmp_path.glob("region_*"))
    assert WINDOWS or stored < (1 << 20) + (1 << 19)  # where no file has holes unless its writer asks for them


def test_unknown_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not 'some'"):
        create_image(tmp_path / "a.cim", tmp_path, metadata="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["{", "[]", '{"file": 1}', '{"file": "a", "path": "a", "type": "file"}'])
def test_a_malformed_sidecar_is_named(tmp_path: Path, text: str) -> None:
    made = folder_of(tmp_path, {"a": b"1"})
    (tmp_path / "source.metadata").mkdir()
    (tmp_path / "source.metadata/entries.jsonl").write_text(text + "\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"entries\.jsonl: line 1"):
        create_image(tmp_path / "a.cim", made, sync=False)
    create_image(tmp_path / "a.cim", made, metadata="none", sync=False)
