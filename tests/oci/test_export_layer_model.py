"""Any change of an image comes back from its export."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

import cimlayer
from cimfs_ext.image import ImageWriter
from cimlayer.errors import ImageError
from support.image_layers import bare_layer
from support.platforms import examples
from support.trees import assert_equal_trees

DIRECTORY = 0x10
NAMES = ["a", "A", "b", "c"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("\\".join)
OPERATIONS = st.one_of(
    st.tuples(st.just("file"), PATHS, st.binary(max_size=3)),
    st.tuples(st.just("directory"), PATHS, st.integers(0, 2)),
    st.tuples(st.just("link"), PATHS, PATHS),
    st.tuples(st.just("stream"), PATHS, st.sampled_from(["x", "X", "y"])),
    st.tuples(st.just("delete"), PATHS, st.none()),
)


def apply(image: ImageWriter, operations: list[tuple[str, str, object]]) -> None:
    """What cannot be done, such as a link to what is not there, is left out."""
    for kind, path, argument in operations:
        with contextlib.suppress(ImageError):
            if kind == "file":
                assert isinstance(argument, bytes)
                image.create_file(path, size=len(argument))
                image.write(argument)
            elif kind == "directory":
                assert isinstance(argument, int)
                image.create_file(path, attributes=DIRECTORY, last_write_time=argument)
            elif kind == "link":
                image.create_hard_link(path, str(argument))
            elif kind == "stream":
                image.create_alternate_stream(f"{path}:{argument}", 1)
                image.write(b"s")
            else:
                image.delete_path(path)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(OPERATIONS, max_size=15), st.lists(OPERATIONS, max_size=10))
def test_changes_come_back(base: list[tuple[str, str, object]], changes: list[tuple[str, str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        bare_layer(root, "base", lambda image: apply(image, base))
        bare_layer(root, "child", lambda image: apply(image, changes), "base")
        cimlayer.export_layer(root / "child", [root / "base"], root / "tar")
        cimlayer.import_layer(root / "tar", root / "again", [root / "base"], sync=False, jobs=1)
        assert_equal_trees(root / "child", root / "again", ignored=("",))
