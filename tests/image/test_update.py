"""Changes to an image, in its place and beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import FormatError, ImageExistsError, LimitError, OperationCancelledError, PathNotFoundError
from cimlayer.image.update import Change, parse_changes
from support.commands import call, succeed, without_codes
from support.image_layers import link_data
from support.images import (
    DIRECTORY,
    METADATA,
    add,
    assert_sound,
    make_image,
    names_in,
    read_files,
    read_tree,
    snapshot,
    writer,
)

FILES: dict[str, bytes | None] = {"a": b"1", "d": None, "d\\b": b"2", "d\\e": None, "d\\e\\c": b"3"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return make_image(tmp_path / "images", "image.cim", FILES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder/sub").mkdir(parents=True)
    (tmp_path / "folder/new").write_bytes(b"new")
    (tmp_path / "folder/sub/b").write_bytes(b"sub")
    return tmp_path / "folder"


def update(image: Path, *lines: str, **options: object) -> cimlayer.ImageUpdate:
    return cimlayer.update_image(image, parse_changes(lines), sync=False, **options)  # type: ignore[arg-type]


def test_changes_are_made_in_order(image: Path, folder: Path) -> None:
    done = update(
        image,
        "# a comment",
        "",
        f"add {folder} /d",
        f"add '{folder / 'new'}' \\x\\y.txt",
        "delete --recursive d/E",
        "rename a renamed",
        f'add "{folder / "new"}" "/with blank"',
        "rename 'with blank' d\\again",
    )
    assert (done.added, done.bytes, done.deleted, done.renamed) == (5, 12, 1, 2)
    assert read_files(image) == {
        "renamed": b"1",
        "d": None,
        "d\\b": b"2",
        "d\\new": b"new",
        "d\\sub": None,
        "d\\sub\\b": b"sub",
        "d\\again": b"new",
        "x": None,
        "x\\y.txt": b"new",
    }
    assert_sound(image)


def test_new_image_beside_leaves_the_old_one(image: Path, folder: Path) -> None:
    before = snapshot(image.parent)
    update(image, "delete d", output=image.with_name("other.cim"))
    assert read_files(image.with_name("other.cim")) == {"a": b"1"}
    after = snapshot(image.parent)
    assert {name: after[name] for name in before} == before
    with pytest.raises(ImageExistsError):
        update(image, "delete d", output=image.with_name("other.cim"))
    with pytest.raises(ValueError, match="must lie in the directory"):
        update(image, "delete d", output=folder / "other.cim")


def test_image_that_others_are_forked_from_is_not_replaced(image: Path) -> None:
    update(image, "delete d", output=image.with_name("other.cim"))
    before = snapshot(image.parent)
    with pytest.raises(ValueError, match=r"forked from it: other\.cim"):
        update(image, "delete a")
    assert snapshot(image.parent) == before
    update(image.with_name("other.cim"), "delete a")
    assert read_files(image.with_name("other.cim")) == {}


def test_directories_are_renamed_with_all_that_they_have(tmp_path: Path) -> None:
    times = {
        "creation_time": 133_000_000_000_000_001,
        "last_write_time": 133_000_000_000_000_002,
        "change_time": 133_000_000_000_000_003,
        "last_access_time": 133_000_000_000_000_004,
    }
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "d", **(METADATA | times | {"attributes": DIRECTORY | 2, "reparse_data": b""}))
        image.create_alternate_stream("d:stream", 4)
        image.write(b"data")
        add(image, "d\\link", attributes=DIRECTORY, reparse_data=link_data("x"))
        add(image, "d\\file", b"content", **METADATA)
        image.create_alternate_stream("d\\file:s", 1)
        image.write(b"t")
        image.create_hard_link("other name", "d\\file")
        image.commit()
    before = read_tree(tmp_path / "image.cim")
    update(tmp_path / "image.cim", "rename d Deeper")
    after = read_tree(tmp_path / "image.cim")
    assert after == {
        path.replace("d\\", "Deeper\\") if path != "d" else "Deeper": node for path, node in before.items()
    }
    with cimlayer.ImageReader(tmp_path / "image.cim") as reader:
        assert reader.stat("deeper/file").file_id == reader.stat("other name").file_id


def test_case_of_names_is_changed(image: Path) -> None:
    update(image, "rename a A", "rename d/e D/E")
    update(image, "rename d D")
    assert set(read_files(image)) == {"A", "D", "D\\b", "D\\E", "D\\E\\c"}


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["delete none"], PathNotFoundError, "not found in image.cim: 'none'"),
        (["rename none x"], PathNotFoundError, "not found in image.cim: 'none'"),
        (["rename a none/x"], PathNotFoundError, "cannot be renamed to none/x: .* 'a'"),
        (["rename d d/e/f"], ValueError, "d: cannot become a part of itself: d/e/f"),
        (["rename a d"], FormatError, "^d: a directory is there already"),
        (["delete d/b", "rename d x"], FormatError, "d: something in this directory was changed before"),
        (["rename d x", "rename x y"], FormatError, "x: a directory that was changed before"),
        (["add {folder}/none x"], FileNotFoundError, "folder/none"),
        (["add {folder}/new /"], ValueError, "cannot take the place of the root"),
        (["add {folder} a"], FormatError, "^a: a file is there already"),
        (["add {folder}/new d"], FormatError, "^d: a directory is there already"),
        (["add {folder} a:b"], FormatError, "a:b"),
        (["delete /"], ValueError, "/: the root"),
        (["rename a /"], ValueError, "/: the root"),
    ],
)
def test_failure_names_the_entry_and_changes_nothing(
    image: Path, folder: Path, lines: list[str], error: type[Exception], message: str
) -> None:
    before = snapshot(image.parent)
    with pytest.raises(error) as caught:
        update(image, f"add {folder} first", *(line.format(folder=folder.as_posix()) for line in lines))
    assert re.search(message, without_codes(str(caught.value)).replace("\\\\", "/"))
    assert snapshot(image.parent) == before


def test_nothing_in_a_folder_takes_the_place_of_a_directory(image: Path, tmp_path: Path) -> None:
    (tmp_path / "folder/d").mkdir(parents=True)
    (tmp_path / "folder/d/e").write_bytes(b"no directory")
    with pytest.raises(FormatError, match="d/e: a directory is there already"):
        update(image, f"add {tmp_path / 'folder'} /")
    update(image, "delete d/e", f"add {tmp_path / 'folder'} /")
    assert read_files(image)["d\\e"] == b"no directory"


def test_missing_paths_may_be_forced(image: Path) -> None:
    assert update(image, "delete --force none", "delete a").deleted == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("move a b", "no such command: move"),
        ("add a", "add takes a source and a target"),
        ("delete", "delete takes a path"),
        ("delete a b", "delete takes a path"),
        ("rename a 'b", "No closing quotation"),
        ("delete --all a", "delete has no option --all"),
        ("rename '' b", "rename takes a source and a target"),
    ],
)
def test_malformed_line_is_named(line: str, message: str) -> None:
    with pytest.raises(FormatError, match=f"^list line 2: {message}"):
        parse_changes(["delete a", line], "list")


def test_backslashes_and_comments_are_those_of_wimlib() -> None:
    assert parse_changes([r"  add C:\x \a\b", "#delete x", "delete a#b"]) == [
        Change("add", r"\a\b", r"C:\x"),
        Change("delete", "a#b"),
    ]


def test_limits_and_cancelling_change_nothing(image: Path, folder: Path) -> None:
    before = snapshot(image.parent)
    cancelled = cimlayer.CancellationToken()
    cancelled.cancel()
    with pytest.raises(LimitError, match=r"image\.cim"):
        update(image, f"add {folder} x", limits=cimlayer.Limits(files=2))
    with pytest.raises(OperationCancelledError):
        update(image, "delete a", cancel=cancelled)
    assert snapshot(image.parent) == before


def test_sidecar_of_a_folder_is_taken(tmp_path: Path, image: Path) -> None:
    with writer(image.parent, None, "source.cim") as source:
        add(source, "f", b"x", **(METADATA | {"reparse_data": b""}))
        source.commit()
    with cimlayer.ImageReader(image.with_name("source.cim")) as reader:
        cimlayer.extract(reader, "", tmp_path / "out", metadata="sidecar")
    update(image, f"add {tmp_path / 'out'} /")
    assert read_tree(image)["f"] == read_tree(image.with_name("source.cim"))["f"]


def test_command(image: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"add {folder} /d\n", encoding="utf-8")
    assert "4 entries added" not in succeed("update", image, tmp_path / "list", "--no-sync")
    succeed("update", image, "-", "--no-sync", input="delete a\n")
    done = json.loads(succeed("update", image, "-c", "rename d x", "-c", "delete x/b", "--no-sync", "--json"))
    assert (done["renamed"], done["deleted"]) == (1, 1)
    assert set(read_files(image)) == {"x", "x\\e", "x\\e\\c", "x\\new", "x\\sub", "x\\sub\\b"}
    assert names_in(tmp_path) == ["folder", "images", "list"]
    assert call("update", image).exit_code == 2
    assert call("update", image, tmp_path / "list", "-c", "delete x").exit_code == 2
    result = call("update", image, "-c", "delete none")
    assert result.exit_code == 1
    assert without_codes(result.stderr) == "cimlayer: none: not found in image.cim\n"
