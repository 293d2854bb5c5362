"""ImageWriter: create, fork, extend, commit and close, reproducible images."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cimfs_ext import errors
from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from support.images import (
    DIRECTORY,
    TIME,
    add,
    assert_sound,
    make_image,
    names_in,
    read_files,
    snapshot,
    writer,
)
from support.platforms import A_BROKEN_LINK, A_SYMLINK, WINDOWS, needs_permissions, posix_only
from support.written import (
    CALLS,
    E_ACCESS,
    E_CORRUPT,
    E_EXISTS,
    E_FILE,
    E_INVALIDARG,
    E_PATH,
    E_SHARING,
    NOISE,
    committed,
    image,  # noqa: F401  fixtures
)

# ---- create, fork, extend ----


def test_new_image_is_empty(image: ImageWriter) -> None:
    assert committed(image) == {}


def test_default_implementation_is_the_systems_where_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIMLAYER_IMPLEMENTATION", raising=False)
    systems = WINDOWS and Path(os.environ["SYSTEMROOT"], "System32", "cimfs.dll").exists()
    with ImageWriter(tmp_path, None, "a.cim") as image:
        assert image.implementation == ("system" if systems else "portable")


def test_new_image_has_three_regions_and_object_id_files(tmp_path: Path) -> None:
    with ImageReader(make_image(tmp_path, "a.cim", {})) as image:
        (own,) = image.region_sets
    assert own.count == 3
    assert names_in(tmp_path) == sorted([*own.file_names(), "a.cim"])


def test_fork_leaves_the_existing_image_as_it_is(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"d": None, "d\\x": b"old"})
    before = snapshot(tmp_path)
    make_image(tmp_path, "b.cim", {"d\\x": b"new", "d\\y": b"more"}, parent="a.cim")
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before
    assert read_files(tmp_path / "a.cim") == {"d": None, "d\\x": b"old"}
    assert read_files(tmp_path / "b.cim") == {"d": None, "d\\x": b"new", "d\\y": b"more"}


def test_fork_lists_the_region_sets_of_its_parents(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {})
    make_image(tmp_path, "b.cim", {}, parent="a.cim")
    with ImageReader(make_image(tmp_path, "c.cim", {}, parent="b.cim")) as third:
        sets = third.region_sets
    with ImageReader(tmp_path / "b.cim") as second:
        assert sets[:2] == second.region_sets
    assert len(set(sets)) == 3


@pytest.mark.parametrize("new", [None, "a.cim"], ids=["only the existing name", "the same name"])
def test_extend_replaces_the_image(tmp_path: Path, new: str | None) -> None:
    make_image(tmp_path, "a.cim", {"x": b"old", "y": b"kept"})
    names = names_in(tmp_path)
    with writer(tmp_path, "a.cim", new) as image:
        assert image.name == "a.cim"
        add(image, "x", b"new" * 3000)
        image.commit()
    assert read_files(tmp_path / "a.cim") == {"x": b"new" * 3000, "y": b"kept"}
    assert names_in(tmp_path) == names
    assert_sound(tmp_path / "a.cim")


def test_open_reader_keeps_seeing_the_state_before_an_extend(tmp_path: Path) -> None:
    path = make_image(tmp_path, "a.cim", {"x": b"old", "big": NOISE[:9000]})
    with ImageReader(path) as before:
        make_image(tmp_path, "a.cim", {"x": b"new", "y": NOISE[:99999]}, parent="a.cim")
        assert [entry.name for entry in before.listdir()] == ["big", "x"]
        assert before.read("x") == b"old"
        assert before.read("big") == NOISE[:9000]


def test_fork_of_an_extended_image(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"x": b"1"})
    make_image(tmp_path, "a.cim", {"y": NOISE[:8192]}, parent="a.cim")
    path = make_image(tmp_path, "b.cim", {"z": b"3", "copy": NOISE[:8192]}, parent="a.cim")
    assert read_files(path) == {"copy": NOISE[:8192], "x": b"1", "y": NOISE[:8192], "z": b"3"}
    assert_sound(path)


@pytest.mark.parametrize(
    ("existing", "new", "kind", "hresult"),
    [
        (None, None, errors.InvalidCallError, E_INVALIDARG),
        ("missing.cim", None, errors.PathNotFoundError, E_FILE),
        ("missing.cim", "b.cim", errors.PathNotFoundError, E_FILE),
        (None, "a.cim", errors.ImageExistsError, E_EXISTS),
        ("a.cim", "c.cim", errors.ImageExistsError, E_EXISTS),
        (None, "", errors.InvalidCallError, E_INVALIDARG),
        (None, "..", errors.InvalidCallError, E_INVALIDARG),
        (None, "d\\b.cim", errors.InvalidCallError, E_INVALIDARG),
        (None, "d/b.cim", errors.InvalidCallError, E_INVALIDARG),
        (None, "b.cim:s", errors.InvalidCallError, E_INVALIDARG),
        (None, "b\0.cim", errors.InvalidCallError, E_INVALIDARG),
        ("a?.cim", "b.cim", errors.InvalidCallError, E_INVALIDARG),
        (None, "b" * 256, errors.InvalidCallError, E_INVALIDARG),
        (None, "ü" * 128, errors.InvalidCallError, E_INVALIDARG),
    ],
)
def test_names_that_create_refuses(
    tmp_path: Path, existing: str | None, new: str | None, kind: type[OSError], hresult: int
) -> None:
    make_image(tmp_path, "a.cim", {})
    make_image(tmp_path, "c.cim", {})
    before = snapshot(tmp_path)
    with pytest.raises(kind) as raised:
        ImageWriter(tmp_path, existing, new)
    assert raised.value.hresult == hresult
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["b", "b.cim", "ü€𐍈.cim", "b" * 255, "b" * 251 + ".cim", " .cim "])
def test_names_that_create_takes(tmp_path: Path, name: str) -> None:
    assert read_files(make_image(tmp_path, name, {"x": b"1"})) == {"x": b"1"}


def test_leading_backslash_is_no_part_of_an_image_name(tmp_path: Path) -> None:
    make_image(tmp_path, "\\a.cim", {"x": b"1"})
    assert read_files(tmp_path / "a.cim") == {"x": b"1"}


def test_new_image_takes_no_other_file_for_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.cim.tmp").write_bytes(b"not ours")
    make_image(tmp_path, "a.cim", {"x": b"1"})
    make_image(tmp_path, "a.cim", {"x": b"2"}, parent="a.cim")
    assert (tmp_path / "a.cim.tmp").read_bytes() == b"not ours"


def test_containing_path_must_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(errors.PathNotFoundError) as raised:
            ImageWriter(path, None, "a.cim")
        assert raised.value.hresult == E_PATH


@posix_only("names are bytes")
def test_directory_whose_name_is_not_utf8(tmp_path: Path) -> None:
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff\xfe"))
    directory.mkdir()
    assert read_files(make_image(directory, "a.cim", {"x": b"1"})) == {"x": b"1"}


@pytest.mark.parametrize("place", [A_SYMLINK, "a directory", A_BROKEN_LINK])
def test_name_taken_by_something_that_is_no_image(tmp_path: Path, place: str) -> None:
    if place == "a directory":
        (tmp_path / "b.cim").mkdir()
    elif place == "a symbolic link":
        (tmp_path / "b.cim").symlink_to(make_image(tmp_path, "a.cim", {}))
    else:
        (tmp_path / "b.cim").symlink_to("nowhere")
    with pytest.raises(errors.ImageExistsError):
        ImageWriter(tmp_path, None, "b.cim")


@needs_permissions
def test_no_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(errors.ImagePermissionError) as raised:
        ImageWriter(tmp_path, None, "a.cim")
    assert raised.value.hresult == E_ACCESS


def test_existing_image_that_cannot_be_read(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {})
    (tmp_path / "a.cim").write_bytes(b"no image at all")
    before = snapshot(tmp_path)
    for new in (None, "b.cim"):
        with pytest.raises(errors.CorruptImageError) as raised:
            ImageWriter(tmp_path, "a.cim", new)
        assert raised.value.hresult == E_CORRUPT
        assert "a.cim" in str(raised.value)
    assert snapshot(tmp_path) == before


# ---- commit and close ----


def test_nothing_is_visible_before_the_commit(image: ImageWriter, tmp_path: Path) -> None:
    add(image, "x", NOISE)
    assert not (tmp_path / "a.cim").exists()
    image.commit()
    assert (tmp_path / "a.cim").exists()


def test_after_the_commit_only_close_is_allowed(image: ImageWriter) -> None:
    add(image, "x", b"1")
    image.commit()
    for call in (*CALLS.values(), lambda image, _: image.commit()):
        with pytest.raises(errors.InvalidCallError) as raised:
            call(image, "x")
        assert raised.value.hresult == E_INVALIDARG
    assert not image.closed
    image.close()
    assert read_files(Path(image.directory) / "a.cim") == {"x": b"1"}


def test_closed_image_takes_no_calls(image: ImageWriter) -> None:
    image.close()
    image.close()
    assert image.closed
    for call in (*CALLS.values(), lambda image, _: image.commit(), lambda image, _: image.write(b"")):
        with pytest.raises(ValueError, match="closed"):
            call(image, "x")


@pytest.mark.parametrize("parent", [None, "p.cim"])
@pytest.mark.parametrize("open_stream", [False, True])
def test_close_without_commit_leaves_nothing(tmp_path: Path, parent: str | None, open_stream: bool) -> None:
    make_image(tmp_path, "p.cim", {"x": b"1"})
    before = snapshot(tmp_path)
    with writer(tmp_path, parent, "a.cim") as image:
        add(image, "y", NOISE)
        if not open_stream:
            image.close_stream()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("first", [b"1", NOISE[:4096], NOISE[: (2 << 20) + 5]], ids=len)
def test_abandoned_extend_cuts_the_regions_back(tmp_path: Path, first: bytes) -> None:
    make_image(tmp_path, "a.cim", {"x": first})
    before = snapshot(tmp_path)
    with writer(tmp_path, "a.cim") as image:
        for size in (1, 4000, 5000, 3 << 20):
            add(image, f"{size}", NOISE[1 : 1 + size])
        image.delete_path("x")
    assert snapshot(tmp_path) == before
    assert_sound(tmp_path / "a.cim")


def test_dropped_image_is_abandoned(tmp_path: Path) -> None:
    image = writer(tmp_path, None, "a.cim")
    add(image, "x", NOISE)
    del image
    assert names_in(tmp_path) == []


def test_an_image_has_one_writer(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as first:
        with pytest.raises(errors.ImageBusyError) as raised:
            writer(tmp_path, None, "a.cim")
        assert raised.value.hresult == E_SHARING
        with writer(tmp_path, None, "b.cim") as beside:
            beside.commit()
        first.commit()
        with pytest.raises(errors.ImageExistsError):
            writer(tmp_path, None, "a.cim")
        with writer(tmp_path, "a.cim", "c.cim") as fork:
            fork.commit()
    for name in ("a.cim", "b.cim", "c.cim"):
        assert_sound(tmp_path / name)
    assert not list(tmp_path.glob("image_*"))


def test_what_is_forked_is_not_extended_meanwhile_nor_the_other_way_round(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"x": b"1"})
    forks = (writer(tmp_path, "a.cim", "b.cim"), writer(tmp_path, "a.cim", "c.cim"))
    with forks[0], forks[1], pytest.raises(errors.ImageBusyError):
        writer(tmp_path, "a.cim")
    with writer(tmp_path, "a.cim"):
        for arguments in (("a.cim", "b.cim"), ("a.cim",)):
            with pytest.raises(errors.ImageBusyError):
                writer(tmp_path, *arguments)


def test_an_image_that_was_not_committed_leaves_no_draft(tmp_path: Path) -> None:
    for arguments in ((None, "a.cim"), ("missing.cim", "a.cim")):
        with contextlib.suppress(errors.PathNotFoundError), writer(tmp_path, *arguments):
            pass
    assert not list(tmp_path.iterdir())


def test_a_claim_dies_with_its_process(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from cimfs_ext.image import ImageWriter
        image = ImageWriter(sys.argv[1], None, "a.cim")
        print("ready", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline().rstrip() == b"ready"
        with pytest.raises(errors.ImageBusyError):
            writer(tmp_path, None, "a.cim")
        child.kill()
    assert read_files(make_image(tmp_path, "a.cim", {"x": b"1"})) == {"x": b"1"}


def test_extend_after_a_writer_was_killed(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"x": b"1"})
    for region in tmp_path.glob("region_*"):
        with region.open("ab") as file:
            file.write(b"left behind" * 1000)
    for name in [path.name for path in tmp_path.glob("objectid_*")]:
        (tmp_path / f"{name}.tmp").write_bytes(b"left behind")
    make_image(tmp_path, "a.cim", {"y": b"2", "z": NOISE[:9999]}, parent="a.cim")
    assert read_files(tmp_path / "a.cim") == {"x": b"1", "y": b"2", "z": NOISE[:9999]}
    assert_sound(tmp_path / "a.cim")
    assert not list(tmp_path.glob("*.tmp"))


def test_commit_with_sync(tmp_path: Path) -> None:
    with ImageWriter(tmp_path, None, "a.cim") as image:
        add(image, "x", b"1")
        image.commit()
    assert read_files(tmp_path / "a.cim") == {"x": b"1"}


# ---- reproducible images ----


def seeded(directory: Path, name: str, seed: bytes, parent: str | None = None) -> dict[str, bytes]:
    directory.mkdir(exist_ok=True)
    with ImageWriter(directory, parent, name, sync=False, time=TIME, seed=seed) as image:
        add(image, f"d{len(seed)}", attributes=DIRECTORY)
        for i in range(50):
            add(image, f"{i}", NOISE[i : i + 100 * i])
        image.create_alternate_stream("7:s", 3)
        image.write(b"abc")
        image.create_hard_link("link", "8")
        image.commit()
    return snapshot(directory)


def test_seed_makes_identical_images(tmp_path: Path) -> None:
    first = seeded(tmp_path / "1", "a.cim", b"seed")
    assert seeded(tmp_path / "2", "a.cim", b"seed") == first
    assert seeded(tmp_path / "1", "b.cim", b"seed2", "a.cim") == seeded(tmp_path / "2", "b.cim", b"seed2", "a.cim")


def test_region_set_depends_on_seed_parent_and_name(tmp_path: Path) -> None:
    sets = []
    for directory, name, seed, parent in (
        ("1", "a.cim", b"seed", None),
        ("1", "b.cim", b"seed", None),
        ("1", "c.cim", b"other", None),
        ("1", "d.cim", b"seed", "a.cim"),
        ("1", "e.cim", b"seed", "b.cim"),
        ("2", "d.cim", b"seed", None),
    ):
        seeded(tmp_path / directory, name, seed, parent)
        with ImageReader(tmp_path / directory / name) as image:
            sets.append(image.region_sets[-1].set_id)
    assert len(set(sets)) == len(sets)
    assert {set_id.version for set_id in sets} == {4}


def test_without_a_seed_region_sets_differ(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    with (
        ImageReader(make_image(tmp_path / "1", "a.cim", {})) as first,
        ImageReader(make_image(tmp_path / "2", "a.cim", {})) as second,
    ):
        assert first.region_sets != second.region_sets
