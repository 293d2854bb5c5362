"""One rule book: the same items, as a tar and as calls, give the same layer or the same error."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimfs_ext.backupstream import BackupStreamWriter as Stream
from cimlayer import CimLayerWriter, FileBasicInfo, destroy_cim_layer, import_layer
from cimlayer.layer.standard import HIVES, UTILITY_VM_BCD
from support import layers
from support.layers import NULL_DACL, image_of, reparse_of, snapshot
from support.platforms import examples
from support.tars import FILETIME_OF_1970, TarBuilder, windows_pax

OWNED = bytes.fromhex("01000480140000000000000000000000000000000102000000000005200000002002 0000".replace(" ", ""))
DELTA = layers.hive(Delta="of this layer")
MALFORMED = b"no descriptor"
READ_ONLY, DIRECTORY, ARCHIVE, SYMLINK = 0x1, 0x10, 0x20, 0x400
ATTRIBUTES = st.sampled_from([ARCHIVE, ARCHIVE | READ_ONLY])
DESCRIPTORS = st.sampled_from([b"", b"", OWNED, NULL_DACL, MALFORMED])

# Places where something is in the parent, where standard files lie, and above and below them.
PATHS = (
    "Files", "Files/a", "Files/a/f", "Files/a/g", "Files/new", "Files/new/deep/er", "files/A/F", "other", "other/x",
    HIVES[0].path, HIVES[2].path, f"{HIVES[2].path}/below", "Files/Windows", "files/windows/SYSTEM32",
    HIVES[0].delta_path, HIVES[1].delta_path.lower(), "Hives", "hives/new", "link", "link/below", "UtilityVM",
    "utilityvm/Files", UTILITY_VM_BCD, "a*b", "x/../y", "n" * 256, "C:/x", "", ".",
)  # fmt: skip


def spelled(path: str, choice: int) -> str:
    """One of the ways to write a path that mean the same."""
    path = path.replace("\\", "/")
    return (path, path, f"./{path}", path.replace("/", "//"), path.replace("/", "/./"))[choice % 5]


# In a tar a slash at the end makes a directory of any file.
paths = st.builds(spelled, st.sampled_from(PATHS), st.integers(0, 4)).filter(lambda path: not path.endswith("/"))


@dataclass(frozen=True)
class Entry:
    """Something that is added, with metadata of its own."""

    path: str
    attributes: int
    descriptor: bytes
    time: int

    @property
    def info(self) -> FileBasicInfo:
        return FileBasicInfo.at(self.time, self.attributes)

    @property
    def pax(self) -> dict[str, str]:
        times = dict.fromkeys(("creation", "mtime", "atime", "ctime"), self.time)
        return windows_pax(self.attributes, sd=self.descriptor or None, **times)


@dataclass(frozen=True)
class File(Entry):
    data: bytes
    streams: tuple[tuple[str, bytes], ...]

    def tar(self, tar: TarBuilder) -> None:
        tar.file(self.path, self.data, pax=self.pax)
        for name, data in self.streams:
            tar.stream(self.path, name, data)

    def call(self, writer: CimLayerWriter) -> None:
        writer.add(self.path, self.info, len(self.data), self.descriptor)
        write(writer, self.data)
        for name, data in self.streams:
            writer.add_alternate_stream(f"{self.path}:{name}", len(data))
            write(writer, data)


@dataclass(frozen=True)
class Directory(Entry):
    slash: str

    def tar(self, tar: TarBuilder) -> None:
        tar.directory(self.path, pax=self.pax)

    def call(self, writer: CimLayerWriter) -> None:
        writer.add(self.path + self.slash, self.info, 0, self.descriptor)


@dataclass(frozen=True)
class SymbolicLink(Entry):
    target: str

    def tar(self, tar: TarBuilder) -> None:
        tar.symlink(self.path, self.target, pax=self.pax)

    def call(self, writer: CimLayerWriter) -> None:
        writer.add(self.path, self.info, 0, self.descriptor, reparse_data=reparse_of(self.target))


@dataclass(frozen=True)
class HardLink:
    path: str
    target: str

    def tar(self, tar: TarBuilder) -> None:
        tar.hardlink(self.path, self.target)

    def call(self, writer: CimLayerWriter) -> None:
        writer.add_link(self.path, self.target.replace("/", "\\"))


@dataclass(frozen=True)
class Removal:
    path: str

    def tar(self, tar: TarBuilder) -> None:
        tar.whiteout(self.path)

    def call(self, writer: CimLayerWriter) -> None:
        writer.remove(self.path)


@dataclass(frozen=True)
class OpaqueRemoval:
    path: str

    def tar(self, tar: TarBuilder) -> None:
        tar.opaque(self.path)

    def call(self, writer: CimLayerWriter) -> None:
        writer.remove_contents(self.path)


Item = File | Directory | SymbolicLink | HardLink | Removal | OpaqueRemoval


def write(writer: CimLayerWriter, data: bytes) -> None:
    for piece in Stream.data(data):
        writer.write(piece)


times = st.integers(FILETIME_OF_1970, FILETIME_OF_1970 + 10**16)
files = st.builds(
    File, paths, ATTRIBUTES, DESCRIPTORS, times, st.sampled_from([b"", b"content", DELTA, bytes(70_000)]),
    st.lists(st.tuples(st.sampled_from(["zone", "other:$DATA"]), st.binary(max_size=9)), max_size=2).map(tuple),
)  # fmt: skip
directories = st.builds(
    Directory, paths.filter(bool), st.just(DIRECTORY), DESCRIPTORS, times, st.sampled_from(["", "/", "\\"])
)  # fmt: skip
links = st.builds(
    SymbolicLink, paths, st.sampled_from([ARCHIVE | SYMLINK, DIRECTORY | SYMLINK]), DESCRIPTORS, times,
    st.sampled_from(["a", "../x"]),
)  # fmt: skip
# A whiteout of nothing, or of the root, has a name of its own in a tar.
named = paths.filter(lambda path: path.rpartition("/")[2] not in ("", "."))
items = st.lists(
    st.one_of(
        files, files, directories, links, st.builds(HardLink, paths, paths), st.builds(Removal, named),
        st.builds(OpaqueRemoval, named),
    ),
    max_size=12,
)  # fmt: skip


def outcome(root: Path, make: Callable[[], object]) -> object:
    """All of the layer ``root/layer``, which is then gone, or what was raised, if that has left nothing."""
    before = sorted(root.rglob("*"))
    try:
        make()
    except Exception as error:
        assert sorted(root.rglob("*")) == before
        return type(error), getattr(error, "reason", str(error))
    image, files = image_of(root / "layer"), snapshot(root / "layer")
    destroy_cim_layer(root / "layer")
    ids: dict[int, str] = {}
    for path, entry in image.items():
        ids.setdefault(entry.file_id, path)
    content = {
        path: (
            *(ids[entry.file_id], entry.is_directory, entry.attributes, entry.sd, entry.data, entry.reparse, entry.eas),
            *(entry.creation_time, entry.last_write_time, entry.change_time, entry.last_access_time, entry.streams),
        )
        for path, entry in image.items()
    }
    return content, files


def by_tar(root: Path, parents: list[Path], items: list[Item]) -> object:
    tar = TarBuilder()
    for item in items:
        item.tar(tar)
    source = io.BytesIO(tar.finish())
    return outcome(root, lambda: import_layer(source, root / "layer", parents, sync=False, reproducible=True, jobs=1))


def by_calls(root: Path, parents: list[Path], items: list[Item]) -> object:
    def make() -> None:
        with CimLayerWriter(root / "layer", parents, sync=False, reproducible=True) as writer:
            for item in items:
                item.call(writer)

    return outcome(root, make)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a base layer, from which every example begins."""
    root = tmp_path_factory.mktemp("rules")
    tar = TarBuilder()
    layers.add_base_hives(tar)
    tar.file("Files/a/f", b"of the base")
    tar.stream("Files/a/f", "zone", b"of the base")
    tar.directory("Files/a/d")
    tar.stream("Files/a/d", "zone", b"of the base")
    tar.file("Files/a/d/e", b"of the base")
    tar.file("other/x", b"of the base")
    import_layer(io.BytesIO(tar.finish()), root / "base", sync=False, reproducible=True)
    return root


@settings(max_examples=examples(150), deadline=None)
@given(items=items)
def test_child_layer_is_the_same_by_tar_and_by_calls(parents: Path, items: list[Item]) -> None:
    assert by_tar(parents, [parents / "base"], items) == by_calls(parents, [parents / "base"], items)


@settings(max_examples=examples(20), deadline=None)
@given(items=items)
def test_base_layer_is_the_same_by_tar_and_by_calls(
    tmp_path_factory: pytest.TempPathFactory, items: list[Item]
) -> None:
    root = tmp_path_factory.mktemp("base")
    items = [*(file(path, data) for path, data in layers.base_hives().items()), *items]
    assert by_tar(root, [], items) == by_calls(root, [], items)


SAM = HIVES[2].path.replace("\\", "/")


def file(path: str, data: bytes = b"content") -> File:
    return File(path, ARCHIVE, b"", FILETIME_OF_1970, data, ())


def symlink(path: str, attributes: int = ARCHIVE) -> SymbolicLink:
    return SymbolicLink(path, attributes | SYMLINK, b"", FILETIME_OF_1970, "target")


def directory(path: str) -> Directory:
    return Directory(path, DIRECTORY, b"", FILETIME_OF_1970, "/")


CASES: dict[str, tuple[list[Item], str]] = {
    "a symbolic link as a standard file": ([symlink(SAM)], "a symbolic link in place of a file that is processed"),
    "a directory link as one": ([symlink(SAM, DIRECTORY)], "a symbolic link in place of a file that is processed"),
    "one behind the file": ([file(SAM), symlink(SAM)], "a symbolic link in place of a file that is processed"),
    "a directory behind the file": ([file(SAM), directory(SAM)], "something in place of a file that is processed"),
    "below the file": ([file(SAM), file(f"{SAM}/x")], "something in place of a file that is processed"),
    "above the file": ([file(SAM), file("Files/Windows")], "something in place of a file that is processed"),
    "a link as a standard file": ([HardLink(SAM, "other/x")], "a hard link in place of a file that is processed"),
    "a link to nothing": ([HardLink("Files/l", "nothing")], "the target of the hard link does not exist"),
    "a link to a directory": ([HardLink("Files/l", "Files/a")], "a hard link to a directory"),
    "as a link": ([file(SAM), HardLink("l", SAM), file("L")], "something in place of a hard link"),
    "below a link": ([file(SAM), HardLink("l", SAM), directory("L/x")], "something in place of a hard link"),
    "a bad descriptor": ([File("x", 0, MALFORMED, FILETIME_OF_1970, b"", ())], "the security descriptor is malformed"),
    "of a standard file": ([File(SAM, 0, MALFORMED, FILETIME_OF_1970, b"", ())], "security descriptor is malformed"),
    "a bad name": ([file("Files//../x")], "a component . or .."),
}


@pytest.mark.parametrize("case", CASES)
def test_both_refuse_for_the_same_reason(parents: Path, case: str) -> None:
    items, reason = CASES[case]
    by_both = [make(parents, [parents / "base"], items) for make in (by_tar, by_calls)]
    assert by_both[0] == by_both[1]
    assert isinstance(by_both[0], tuple)
    assert reason in str(by_both[0][1])


@pytest.mark.parametrize(
    "items",
    [
        [file("UtilityVM"), directory("other")],
        [symlink("UtilityVM")],
        [directory("UtilityVM")],
        [file("Files//new///deep/./file"), file("./Files/a/f")],
        [file(SAM), HardLink("new/deep/link", f".//{SAM}"), Removal(SAM), Removal("Files/a")],
        [file("Files/a/d/new"), Removal("Files/a/d"), OpaqueRemoval("other")],
    ],
)
def test_both_make_the_same_layer(parents: Path, items: list[Item]) -> None:
    made = by_tar(parents, [parents / "base"], items)
    assert made == by_calls(parents, [parents / "base"], items)
    assert isinstance(made, tuple)
    assert isinstance(made[0], dict), f"an error: {made}"
