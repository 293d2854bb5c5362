"""Random sequences of calls against a plain model in memory: after every commit the trees must be equal."""

from __future__ import annotations

import copy
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cimfs_ext import errors
from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from support import cimoracle
from support.images import DIRECTORY, NULL_DACL, Node, read_tree, snapshot, writer
from support.platforms import examples, same_everywhere

pytestmark = same_everywhere

NOISE = random.Random(5).randbytes(300_000)


@dataclass
class Item:
    """A file or, with children, a directory. Hard links are one object under several names."""

    node: Node
    children: dict[str, tuple[str, Item]] | None = None
    streams: dict[str, tuple[str, bytes]] = field(default_factory=dict)


@dataclass
class Refused(Exception):
    """The model says that a call must fail, and how."""

    kind: type[errors.ImageError]


@dataclass
class Model:
    """The tree of an image, by the rules of cimfs.h."""

    root: dict[str, tuple[str, Item]] = field(default_factory=dict)

    def holder(self, path: str) -> tuple[dict[str, tuple[str, Item]], str]:
        """The directory that holds a path, and the last name."""
        *parents, name = path.split("\\")
        children = self.root
        for parent in parents:
            entry = children.get(parent.upper())
            if entry is None or entry[1].children is None:
                raise Refused(errors.PathNotFoundError)
            children = entry[1].children
        return children, name

    def find(self, path: str) -> Item:
        children, name = self.holder(path)
        if name.upper() not in children:
            raise Refused(errors.PathNotFoundError)
        return children[name.upper()][1]

    def create(self, path: str, node: Node) -> None:
        children, name = self.holder(path)
        old = children.get(name.upper())
        if node.is_directory and old is not None and old[1].children is not None:
            old[1].node = node
            return
        children[name.upper()] = (name, Item(node, {} if node.is_directory else None))

    def stream(self, path: str, name: str, data: bytes) -> None:
        self.find(path).streams[name.upper()] = (name, data)

    def link(self, new: str, existing: str) -> None:
        item = self.find(existing)
        if item.children is not None:
            raise Refused(errors.ImagePermissionError)
        children, name = self.holder(new)
        children[name.upper()] = (name, item)

    def delete(self, path: str) -> None:
        children, name = self.holder(path)
        if children.pop(name.upper(), None) is None:
            raise Refused(errors.PathNotFoundError)

    def delete_stream(self, path: str, name: str) -> None:
        if self.find(path).streams.pop(name.upper(), None) is None:
            raise Refused(errors.PathNotFoundError)

    def tree(self) -> tuple[dict[str, Node], set[frozenset[str]]]:
        """Every path with all that belongs to it, and which paths are one file."""
        nodes: dict[str, Node] = {}
        names: dict[int, list[str]] = {}

        def visit(children: dict[str, tuple[str, Item]], prefix: str) -> None:
            for name, item in children.values():
                streams = dict(item.streams.values())
                nodes[prefix + name] = Node(**{**item.node.__dict__, "streams": streams})
                names.setdefault(id(item), []).append(prefix + name)
                visit(item.children or {}, f"{prefix}{name}\\")

        visit(self.root, "")
        return nodes, {frozenset(paths) for paths in names.values()}


NAMES = st.sampled_from(["a", "A", "b", "B", "ü", "Ü", "я", "Я", "𐍈", "a b.txt", "L" * 255, "l" * 255])
CASES = st.sampled_from([str, str.upper, str.lower])
SIZES = st.sampled_from([0, 1, 10, 4000, 4095, 4096, 4097, 9000, 70_000])
ATTRIBUTES = st.sampled_from([0, 1, 2, 4, 0x20, 0x27, 0x200])
DESCRIPTORS = st.sampled_from([b"", NULL_DACL + b"one", NULL_DACL + bytes(range(200))])
REPARSE = st.sampled_from([b"", b"", b"\x0c\0\0\xa0\4\0\0\0abcd"])
EAS = st.sampled_from([b"", b"", b"\0\0\0\0\0\1\2\0E\0ab"])


@st.composite
def contents(draw: st.DrawFn) -> tuple[int, list[bytes]]:
    """A size, and the pieces that are written of it: all or none."""
    size, start = draw(SIZES), draw(st.integers(0, 2))
    written = draw(st.sampled_from([size, size, size, 0]))
    piece = draw(st.sampled_from([1 << 20, 4096, 1777, 33_333]))
    data = NOISE[start : start + written]
    return size, [data[at : at + piece] for at in range(0, written, piece)]


CONTENTS = contents()


class ImageMachine(RuleBasedStateMachine):
    """Images of one directory: at most one is being written, all committed ones are remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = Path(self.temporary.name)
        self.committed: dict[str, Model] = {}
        self.image: ImageWriter | None = None
        self.model = Model()
        self.calls = 0
        self.before = snapshot(self.directory)

    def open(self, existing: str | None, new: str | None) -> None:
        self.model = copy.deepcopy(self.committed[existing]) if existing else Model()
        self.before = snapshot(self.directory)
        self.calls = 0
        self.image = writer(self.directory, existing, new)

    def agree(self, model: object, call: object) -> bool:
        """Both succeed, or both fail in the same way."""
        self.calls += 1
        try:
            model()  # type: ignore[operator]
        except Refused as refused:
            with pytest.raises(refused.kind):
                call()  # type: ignore[operator]
            return False
        call()  # type: ignore[operator]
        return True

    def there(self, data: st.DataObject) -> str:
        """The path of something that is in the image, in any case of letters, or now and then of nothing."""
        paths = sorted(self.model.tree()[0])
        if not paths or data.draw(st.integers(0, 9)) == 0:
            return self.place(data)
        return data.draw(CASES)(data.draw(st.sampled_from(paths)))

    def place(self, data: st.DataObject) -> str:
        """A path in a directory of the image, taken or not; seldom one below a file."""
        nodes = self.model.tree()[0]
        parents = sorted(path for path, node in nodes.items() if node.is_directory or len(path) == 1)
        parent = data.draw(CASES)(data.draw(st.sampled_from(["", *parents])))
        name = data.draw(NAMES)
        return f"{parent}\\{name}" if parent else name

    def write(self, pieces: list[bytes]) -> None:
        assert self.image is not None
        for piece in pieces:
            self.image.write(piece)

    @initialize(data=st.data())
    def first(self, data: st.DataObject) -> None:
        self.open(None, "0.cim")
        self.create_some(data)

    @precondition(lambda self: self.image is not None)
    @rule(data=st.data())
    def create_some(self, data: st.DataObject) -> None:
        """A few directories and files at once, so that the other calls have something to work on."""
        for directory in data.draw(st.lists(st.booleans(), min_size=2, max_size=8)):
            if directory:
                self.add_directory(self.place(data), 0, b"")
            else:
                content = data.draw(CONTENTS)
                self.add_file(self.place(data), content=content)

    @precondition(lambda self: self.image is None)
    @rule(data=st.data(), how=st.sampled_from(["new", "fork", "fork", "extend", "extend"]))
    def begin(self, data: st.DataObject, how: str) -> None:
        name = f"{len(self.committed)}.cim"
        if how == "new" or not self.committed:
            self.open(None, name)
            return
        existing = data.draw(st.sampled_from(sorted(self.committed)))
        self.open(existing, name if how == "fork" else None)

    @precondition(lambda self: self.image is not None)
    @rule(
        data=st.data(),
        attributes=ATTRIBUTES,
        descriptor=DESCRIPTORS,
        reparse=REPARSE,
        eas=EAS,
        content=CONTENTS,
        time=st.integers(-5, 2**63 - 1),
    )
    def create_file(
        self,
        *,
        data: st.DataObject,
        attributes: int,
        descriptor: bytes,
        reparse: bytes,
        eas: bytes,
        content: tuple[int, list[bytes]],
        time: int,
    ) -> None:
        self.add_file(
            self.place(data),
            attributes=attributes,
            descriptor=descriptor,
            reparse=reparse,
            eas=eas,
            content=content,
            time=time,
        )

    def add_file(
        self,
        path: str,
        *,
        content: tuple[int, list[bytes]],
        attributes: int = 0,
        descriptor: bytes = b"",
        reparse: bytes = b"",
        eas: bytes = b"",
        time: int = 0,
    ) -> None:
        image = self.image
        assert image is not None
        size, pieces = content
        data = b"".join(pieces).ljust(size, b"\0")
        shown = attributes | (0x400 if reparse else 0)
        node = Node(False, shown, (time, 1, 2, 3), data, {}, descriptor or NULL_DACL, reparse, eas)
        if self.agree(
            lambda: self.model.create(path, node),
            lambda: image.create_file(
                path,
                attributes=attributes,
                size=size,
                creation_time=time,
                last_write_time=1,
                change_time=2,
                last_access_time=3,
                security_descriptor=descriptor,
                reparse_data=reparse,
                extended_attributes=eas,
            ),
        ):
            self.write(pieces)

    @precondition(lambda self: self.image is not None)
    @rule(data=st.data(), attributes=ATTRIBUTES, descriptor=DESCRIPTORS)
    def create_directory(self, data: st.DataObject, attributes: int, descriptor: bytes) -> None:
        self.add_directory(self.place(data), attributes, descriptor)

    def add_directory(self, path: str, attributes: int, descriptor: bytes) -> None:
        image = self.image
        assert image is not None
        node = Node(True, attributes | DIRECTORY, (9, 0, 0, 0), b"", {}, descriptor or NULL_DACL, b"", b"")
        self.agree(
            lambda: self.model.create(path, node),
            lambda: image.create_file(
                path, attributes=attributes | DIRECTORY, creation_time=9, security_descriptor=descriptor
            ),
        )

    @precondition(lambda self: self.image is not None)
    @rule(data=st.data(), name=NAMES, content=CONTENTS, suffix=st.sampled_from(["", ":$DATA", ":$data"]))
    def create_stream(self, data: st.DataObject, name: str, content: tuple[int, list[bytes]], suffix: str) -> None:
        image = self.image
        assert image is not None
        path = self.there(data)
        size, pieces = content
        if self.agree(
            lambda: self.model.stream(path, name, b"".join(pieces).ljust(size, b"\0")),
            lambda: image.create_alternate_stream(f"{path}:{name}{suffix}", size),
        ):
            self.write(pieces)

    @precondition(lambda self: self.image is not None)
    @rule(data=st.data())
    def link(self, data: st.DataObject) -> None:
        image = self.image
        assert image is not None
        new, existing = self.place(data), self.there(data)
        self.agree(lambda: self.model.link(new, existing), lambda: image.create_hard_link(new, existing))

    @precondition(lambda self: self.image is not None)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        image = self.image
        assert image is not None
        path = self.there(data)
        self.agree(lambda: self.model.delete(path), lambda: image.delete_path(path))

    @precondition(lambda self: self.image is not None)
    @rule(data=st.data(), name=NAMES)
    def delete_stream(self, data: st.DataObject, name: str) -> None:
        image = self.image
        assert image is not None
        path = self.there(data)
        there = sorted((at, stream) for at, node in self.model.tree()[0].items() for stream in node.streams)
        if there:
            path, name = data.draw(st.sampled_from([(path, name), *there]))
        self.agree(lambda: self.model.delete_stream(path, name), lambda: image.delete_path(f"{path}:{name}"))

    @precondition(lambda self: self.image is not None and self.calls >= 8)
    @rule()
    def abandon(self) -> None:
        assert self.image is not None
        self.image.close()
        self.image = None
        assert snapshot(self.directory) == self.before

    @precondition(lambda self: self.image is not None and self.calls >= 4)
    @rule()
    def commit(self) -> None:
        assert self.image is not None
        with self.image:
            self.image.commit()
        self.committed[self.image.name] = self.model
        self.compare(self.image.name)
        self.image = None

    def compare(self, name: str) -> None:
        expected, files = self.committed[name].tree()
        assert read_tree(self.directory / name) == expected
        found = {path: entry for path, entry in cimoracle.read_image(self.directory, name).items() if path}
        assert {path: from_oracle(entry) for path, entry in found.items()} == expected
        names: dict[int, set[str]] = {}
        for path, entry in found.items():
            names.setdefault(entry.file_id, set()).add(path)
        assert {frozenset(paths) for paths in names.values()} == files

    def teardown(self) -> None:
        with self.temporary:
            if self.image is not None:
                self.commit()
            for name in self.committed:
                self.compare(name)
                with ImageReader(self.directory / name) as reader:
                    report = reader.verify()
                assert (report.problems, report.unjudged) == ((), 0)


def from_oracle(entry: cimoracle.Entry) -> Node:
    times = (entry.creation_time, entry.last_write_time, entry.change_time, entry.last_access_time)
    signed = tuple(time - (1 << 64) if time >> 63 else time for time in times)
    return Node(
        entry.is_directory,
        entry.attributes,
        signed,
        entry.data,
        entry.streams,
        entry.sd,
        entry.reparse,
        entry.eas,
    )


ImageMachine.TestCase.settings = settings(
    max_examples=examples(150),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestImageModel = ImageMachine.TestCase
