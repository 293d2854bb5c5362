"""An image that is exported as a plain tar comes back equal."""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cimlayer
from cimlayer.errors import CorruptImageError, ImageError, LimitError, OperationCancelledError
from cimlayer.image import tarentries
from cimlayer.limits import DEFAULT_LIMITS
from support.commands import call, succeed
from support.image_layers import MOUNT_POINT, bare_layer, link_data
from support.images import DIRECTORY, METADATA, NULL_DACL, add, forge_name, make_image, names_in, read_tree, writer
from support.platforms import examples, needs_symlinks
from support.trees import link_groups

NAMES = st.sampled_from(
    ["a", "B", "ü", "\U0001f600", "h\ud800", ".wh.x", "a" * 255, "n\nl", "tab\t", " .", "PaxHeaders"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("\\".join)
TIMES = (
    st.integers(0, (1 << 63) - 1)
    | st.integers((1 << 63) - 10**7, (1 << 63) - 1)
    | st.integers(116_444_736_000_000_000 - 5, 116_444_736_000_000_005)
)
EAS = st.sampled_from(
    [
        b"",
        METADATA["extended_attributes"],
        b"\x10\0\0\0\x80\1\1\0B\0v\0\0\0\0\0" + b"\0\0\0\0\0\1\0\0A\0\0\0",  # a flag, no order, an empty value
        b"\0\0\0\0\0\3\1\0a=\xe9\0v\0\0\0",
    ]
)
REPARSE = st.sampled_from(
    [
        b"",
        b"",
        link_data("target"),
        link_data(r"..\a", shown="something else"),
        link_data(r"\??\C:\x", shown=r"C:\x", tag=MOUNT_POINT),
        b"\x1d\0\0\xa0\6\0\0\0\2\0\0\0to",
        b"\x1a\0\0\x90\x04\0\0\0abcd",
    ]
)
DESCRIPTORS = st.sampled_from([NULL_DACL, METADATA["security_descriptor"]])
FILES = st.fixed_dictionaries(
    {
        "attributes": st.sampled_from([0, 0x1, 0x27, 0x200, 0x80]),
        "creation_time": TIMES,
        "last_write_time": TIMES,
        "change_time": TIMES,
        "last_access_time": TIMES,
        "security_descriptor": DESCRIPTORS,
        "reparse_data": REPARSE,
        "extended_attributes": EAS,
    }
)
OPERATIONS = st.one_of(
    st.tuples(st.just("file"), PATHS, FILES, st.binary(max_size=3)),
    st.tuples(st.just("hole"), PATHS, FILES, st.sampled_from([1, 511, 70_000])),
    st.tuples(st.just("directory"), PATHS, FILES, st.none()),
    st.tuples(st.just("link"), PATHS, PATHS, st.none()),
    st.tuples(st.just("stream"), PATHS, st.sampled_from(["x", "ü"]), st.binary(max_size=3)),
    st.tuples(st.just("stream hole"), PATHS, st.sampled_from(["x", "z\ud800"]), st.sampled_from([1, 70_000])),
)


def apply(image: cimlayer.ImageWriter, operations: list[tuple[str, str, object, object]]) -> None:
    """What cannot be done, such as a link to what is not there, is left out."""
    for kind, path, argument, content in operations:
        with contextlib.suppress(ImageError):
            if kind == "file":
                add(image, path, content, **argument)
            elif kind == "hole":
                image.create_file(path, size=content, **argument)
            elif kind == "directory":
                image.create_file(path, **(argument | {"attributes": argument["attributes"] | DIRECTORY}))
            elif kind == "link":
                image.create_hard_link(path, argument)
            elif kind == "stream":
                image.create_alternate_stream(f"{path}:{argument}", len(content))
                image.write(content)
            else:
                image.create_alternate_stream(f"{path}:{argument}", content)


def assert_equal_images(one: Path, other: Path) -> None:
    assert read_tree(one) == read_tree(other)
    with cimlayer.ImageReader(one) as ours, cimlayer.ImageReader(other) as theirs:
        assert link_groups(ours) == link_groups(theirs)
        assert holes(ours) == holes(theirs)


def holes(image: cimlayer.ImageReader) -> set[str]:
    """What has a size and is stored nowhere."""
    found = set()
    for path, entry in image.walk():
        if entry.size and not image.location(entry)[0]:
            found.add(path)
        found |= {
            f"{path}:{stream.name}"
            for stream in image.streams(entry)
            if stream.size and not image.location(entry, stream.name)[0]
        }
    return found


def there_and_back(image: Path, root: Path) -> Path:
    assert cimlayer.export_image_as_tar(image, root / "tar") >= 0
    cimlayer.create_image(root / "back.cim", root / "tar", sync=False, jobs=1)
    return root / "back.cim"


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(OPERATIONS, max_size=12))
def test_image_comes_back_from_its_tar(operations: list[tuple[str, str, object, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        with writer(root, None, "image.cim") as image:
            apply(image, operations)
            image.commit()
        assert_equal_images(root / "image.cim", there_and_back(root / "image.cim", root))


def outcomes(image: Path, layer: Path, limits: cimlayer.Limits) -> list[bytes | tuple[type[Exception], str]]:
    """Of both exports: the tar, or the error."""
    found: list[bytes | tuple[type[Exception], str]] = []
    for export in (
        lambda output: cimlayer.export_image_as_tar(image, output, limits=limits),
        lambda output: cimlayer.export_layer(layer, None, output, limits=limits),
    ):
        output = io.BytesIO()
        try:
            size = export(output)
            found += [output.getvalue(), str(size).encode()]
        except (cimlayer.FormatError, ImageError, LimitError) as error:
            found.append((type(error), str(error)))
    return found


@settings(max_examples=examples(50), deadline=None)
@given(
    st.lists(OPERATIONS, max_size=12),
    st.builds(cimlayer.Limits, files=st.integers(1, 20), bytes=st.integers(1, 10), path_depth=st.integers(1, 4))
    | st.just(DEFAULT_LIMITS),
)
@example([("file", "d", {"attributes": DIRECTORY}, b""), ("file", "d\\f", {}, b"x" * 700_000)], DEFAULT_LIMITS)
@example([("file", "a", {}, b"1"), ("link", "b", "a", None), ("file", "c", {}, b"")], DEFAULT_LIMITS)
def test_compiled_code_writes_what_the_table_of_kinds_says(
    operations: list[tuple[str, str, object, object]], limits: cimlayer.Limits
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        layer = bare_layer(Path(directory), "layer", lambda image: apply(image, operations))
        image = cimlayer.get_cim_path_from_layer(layer)
        compiled = outcomes(image, layer, limits)
        patch.setattr(tarentries, "_COMPILED", set())
        assert outcomes(image, layer, limits) == compiled


@pytest.mark.parametrize("layer", ["base", "edge"])
def test_layers_come_back_as_images(corpus: Path, tmp_path: Path, layer: str) -> None:
    image = cimlayer.get_cim_path_from_layer(corpus / layer)
    assert_equal_images(image, there_and_back(image, tmp_path))


@needs_symlinks
def test_other_programs_get_files_directories_and_links(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "d", attributes=DIRECTORY)
        add(image, "d\\f", b"content", last_write_time=133_000_000_000_000_000)
        image.create_hard_link("d\\g", "d\\f")
        add(image, "link", reparse_data=link_data(r"d\f"))
        add(image, "full", attributes=DIRECTORY, reparse_data=link_data("d"))
        add(image, "full\\inside", b"x")
        image.create_file("hole", size=1 << 20)
        image.commit()
    cimlayer.export_image_as_tar(tmp_path / "image.cim", tmp_path / "tar")
    with tarfile.open(tmp_path / "tar") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    out = tmp_path / "out"
    assert (out / "d/f").read_bytes() == b"content"
    assert (out / "d/g").samefile(out / "d/f")
    assert (out / "link").read_bytes() == b"content"
    assert (out / "full/inside").read_bytes() == b"x"
    assert (out / "hole").read_bytes() == bytes(1 << 20)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"CIMLAYER.reparse": "not base64!"}, "a reparse point that is not base64"),
        ({"CIMLAYER.ea": "A"}, "extended attributes that are not base64"),
        ({"CIMLAYER.reparse": "AAAA"}, "reparse"),
        ({"CIMLAYER.ea": "AAAA"}, "EA buffer"),
    ],
)
def test_malformed_records_name_the_entry(tmp_path: Path, record: dict[str, str], message: str) -> None:
    info = tarfile.TarInfo("d/file")
    info.pax_headers = record
    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.addfile(info, io.BytesIO())
    with pytest.raises((cimlayer.FormatError, ImageError), match=message) as caught:
        cimlayer.create_image(tmp_path / "image.cim", tmp_path / "tar", sync=False)
    assert "d" in str(caught.value)
    assert names_in(tmp_path) == ["tar"]


def test_forged_name_is_refused_and_leaves_no_tar(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"ab": b"x"})
    forge_name(tmp_path, "ab", "..")
    with pytest.raises(CorruptImageError, match="no file of Windows"):
        cimlayer.export_image_as_tar(image, tmp_path / "tar")
    assert not (tmp_path / "tar").exists()


def test_limits_and_cancelling_leave_no_tar(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"a": b"x", "b": b"y"})
    cancelled = cimlayer.CancellationToken()
    cancelled.cancel()
    with pytest.raises(LimitError):
        cimlayer.export_image_as_tar(image, tmp_path / "tar", limits=cimlayer.Limits(files=1))
    with pytest.raises(OperationCancelledError):
        cimlayer.export_image_as_tar(image, tmp_path / "tar", cancel=cancelled)
    assert not (tmp_path / "tar").exists()


def test_progress_ends_with_all_of_it(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"a": b"x" * 3_000_000, "b": b"y"})
    events: list[cimlayer.Event] = []
    cimlayer.export_image_as_tar(image, tmp_path / "tar", progress=events.append)
    seen = [event.bytes for event in events if isinstance(event, cimlayer.FilesProgress)]
    assert seen == sorted(seen)
    assert events[-1] == cimlayer.FilesProgress("image.cim", 2, 3_000_001)


def test_command_exports_a_file_as_a_plain_tar(tmp_path: Path) -> None:
    image = make_image(tmp_path, "image.cim", {"a": b"x", ".wh.b": b"y"})
    succeed("export", image, "-o", tmp_path / "tar")
    with tarfile.open(tmp_path / "tar") as tar:
        assert tar.getnames() == [".wh.b", "a"]
    assert call("export", image, "--parent", tmp_path, "-o", tmp_path / "other").exit_code == 2
    assert call("export", tmp_path / "missing.cim", "-o", tmp_path / "other").exit_code == 1
    assert call("export", image, "-o", tmp_path / "tar").exit_code == 1
    assert not (tmp_path / "other").exists()
