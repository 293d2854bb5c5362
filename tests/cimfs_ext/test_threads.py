"""Objects that calls share, from threads, callbacks, finalizers: each call works or is refused, and none crashes.

What these tests look for ends the interpreter, at once under AddressSanitizer (``test_threads_sanitized.py``).
"""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import random
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cimfs_ext import backupstream, contentid, crc32c, implementation, names, reader, tarindex, volumes
from cimfs_ext.entries import ImageEntry
from cimfs_ext.image import ImageWriter
from cimfs_ext.importer import LayerImporter
from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive
from support.images import DIRECTORY, add, make_image, writer

THREADS = 8
ROUNDS = int(os.environ.get("CIMLAYER_THREAD_ROUNDS", "150"))
FILES: dict[str, bytes | None] = {"d": None, **{f"d\\f{i:03}": b"%d" % i * 500 for i in range(200)}}

Call = Callable[[], object]


@pytest.fixture(autouse=True)
def _many_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    make_image(tmp_path, "base.cim", FILES)
    with writer(tmp_path, "base.cim", "a.cim") as changed:
        add(changed, "new", b"n" * 100_000)
        add(changed, "d\\f001", b"other")
        changed.create_alternate_stream("new:s", 5)
        changed.write(b"12345")
        changed.commit()
    return tmp_path / "a.cim"


def stress(calls: dict[str, Call], rounds: int = ROUNDS) -> None:
    """Eight threads make calls in an order of their own. An error is an answer too, but one of a kind that says so."""
    unexpected: list[BaseException] = []

    def run(seed: int) -> None:
        dice = random.Random(seed)
        for name in dice.choices(list(calls), k=rounds):
            try:
                calls[name]()
            except (RuntimeError, ValueError, OSError, StopIteration, KeyError):
                pass
            except BaseException as error:
                unexpected.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if unexpected:
        raise unexpected[0]


def writer_alone(directory: Path) -> ImageWriter:
    """One in a directory of its own: there is one at a time in each."""
    return writer(Path(tempfile.mkdtemp(dir=directory)), None, "a.cim")


class Renewed:
    """An object that is made anew when it has been closed, so that calls meet open ones and closing ones."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.current = make()

    def call(self, method: str) -> Call:
        return lambda: getattr(self.current, method)()  # noqa: PLW0108 - of what is current then

    def close(self) -> None:
        current = self.current
        current.close()
        self.current = self.make()


# ---- many threads ----


def test_image_reader(image: Path, tmp_path: Path) -> None:
    base = Renewed(lambda: ImageReader(tmp_path / "base.cim"))
    opened = Renewed(lambda: ImageReader(image))
    file = opened.current.open("new")
    stress(
        {
            "close": opened.close,
            "close base": base.close,
            "listdir": lambda: opened.current.listdir("d"),
            "walk": lambda: list(opened.current.walk()),
            "stat": lambda: opened.current.stat("d\\f007"),
            "exists": lambda: opened.current.exists("nothing"),
            "streams": lambda: opened.current.streams("new"),
            "offsets": lambda: opened.current.object_offsets("new"),
            "descriptor": lambda: opened.current.security_descriptor("new"),
            "location": lambda: opened.current.location("new", "s"),
            "read": lambda: opened.current.read("new"),
            "sets": lambda: opened.current.region_sets,
            "last": lambda: (opened.current.last_file_id, opened.current.version),
            "verify": lambda: opened.current.verify(lambda _: opened.current.close()),
            "compare": lambda: opened.current.compare_directories("d", base.current, "d", related=True),
            "compare unrelated": lambda: base.current.compare_directories("", opened.current, "", related=False),
            "renew file": lambda: file.__init__(reader._StreamCursor(opened.current, "new", None)),  # type: ignore
            "file": lambda: (file.seek(0), file.read(1000)),
        }
    )
    with ImageReader(image) as sound:
        assert sound.verify().ok
        assert sound.read("new") == b"n" * 100_000


def test_image_writer(tmp_path: Path) -> None:
    count = iter(range(1_000_000))
    opened = Renewed(lambda: writer_alone(tmp_path))
    data = bytes(range(256)) * 400
    stress(
        {
            "close": opened.close,
            "file": lambda: opened.current.create_file(f"f{next(count)}", size=1 << 20),
            "replace": lambda: opened.current.create_file("f", size=1 << 20),
            "directory": lambda: opened.current.create_file("d", attributes=DIRECTORY),
            "stream": lambda: opened.current.create_alternate_stream("f:s", len(data)),
            **{f"write {i}": lambda: opened.current.write(data) for i in range(6)},
            "close stream": opened.call("close_stream"),
            "link": lambda: opened.current.create_hard_link(f"l{next(count)}", "f"),
            "delete": lambda: opened.current.delete_path("f"),
            "tombstone": lambda: opened.current.tombstone("t"),
            "merge link": lambda: opened.current.create_merge_link("m", "f"),
            "add": lambda: opened.current.add_to_merged_image(tmp_path / "none.cim"),
            "commit": opened.call("commit"),
            "look": lambda: (opened.current.closed, opened.current.committed, opened.current.implementation),
        }
    )
    opened.current.close()
    for left in tmp_path.glob("*/*.cim"):
        with ImageReader(left) as sound:
            assert sound.verify().ok


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
def test_file_extractor(image: Path, tmp_path: Path) -> None:
    from cimfs_ext.extractor import FileExtractor

    opened = ImageReader(image)
    extractor = FileExtractor(opened)
    wanted: list[tuple[int, bytes]] = []
    ids = [entry.file_id for entry in opened.listdir("d")]

    def fill() -> None:
        tag = random.getrandbits(60)
        wanted.extend((file_id, bytes(bytearray(b"name%x.%d" % (tag, n)))) for n, file_id in enumerate(ids[:10]))

    target = tmp_path / "out"
    target.mkdir()
    directory = os.open(target, os.O_RDONLY)
    try:
        stress(
            {
                "fill": fill,
                "write": lambda: extractor.write(directory, wanted),
                "clear": wanted.clear,
                "close": opened.close,
                "renew": lambda: FileExtractor(opened).stop(),
            }
        )
    finally:
        os.close(directory)
    assert all(path.name.startswith("name") for path in target.iterdir())


def test_content_hash() -> None:
    content, data = contentid.ContentHash(), random.Random(1).randbytes(300_001)
    stress(
        {
            "update": lambda: content.update(data),
            "byte": lambda: content.update(b"x"),
            "digest": content.digest,
            "id": lambda: contentid.content_id(data),
            "crc": lambda: crc32c.crc32c(data[:5000]),
            "key": lambda: names.upcase_key("Name" * 100),
        }
    )
    assert contentid.content_id(data) == contentid.content_id(bytearray(data))


def test_backup_stream_parser() -> None:
    make = backupstream.BackupStreamWriter
    data = b"".join(
        [
            *make.security(bytes(100)),
            *make.data(bytes(3000)),
            *make.sparse_alternate_stream("s", 9000, [(10, b"abc"), (5000, b"d" * 100)]),
            *make.extended_attributes(bytes(50)),
        ]
    )
    opened = Renewed(lambda: backupstream.BackupStreamParser(3000, "f"))

    def renew() -> None:
        opened.current = opened.make()

    stress(
        {
            "renew": renew,
            "all": lambda: opened.current.feed(data),
            "some": lambda: [opened.current.feed(data[at : at + 7]) for at in range(0, len(data), 7)],
            "finish": opened.call("finish"),
            "offset": lambda: opened.current.offset,
        }
    )


def a_tar(count: int = 50) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(count):
            member = tarfile.TarInfo(f"Files/{'n' * 150}{number}")
            member.size = 10_000
            tar.addfile(member, io.BytesIO(bytes(10_000)))
    return out.getvalue()


def test_tar_index() -> None:
    content = a_tar()
    opened = Renewed(lambda: tarindex.TarIndex(io.BytesIO(content), "tar"))

    def renew() -> None:
        opened.current = opened.make()

    stress({"renew": renew, **{f"next {i}": lambda: next(opened.current) for i in range(10)}})
    assert len(list(opened.make())) == 50


def test_layer_importer(tmp_path: Path) -> None:
    """Threads take turns with importers, each of which has a handler that asks for what must be refused."""
    content = a_tar()

    def attempt() -> None:
        image = writer_alone(tmp_path)

        class Handler:
            def begin_standard_file(self, *_: object) -> None:
                for call in (image.close, image.commit, lambda: importer.feed(content)):
                    try:
                        call()
                    except (RuntimeError, ValueError):
                        continue

            def standard_data(self, data: memoryview) -> None:
                pass

            def end_standard_file(self) -> None:
                pass

        importer = LayerImporter(image, Handler(), [f"Files\\{'n' * 150}3"])  # type: ignore[arg-type]
        importer.feed(content)
        importer.finish()

    stress({"attempt": attempt}, ROUNDS // 10)


def test_hive() -> None:
    hive, delta = Hive.empty(0), Hive.empty(0)
    for number in range(200):
        hive.set_value(f"a\\k{number}", "v", 3, bytes(1000))
        delta.set_value(f"a\\n{number}", "v", 3, bytes(1000))
    count = iter(range(1_000_000))
    stress(
        {
            "write": hive.to_bytes,
            "merge": lambda: Hive.empty(0).merge(delta),
            "set": lambda: hive.set_value(f"b\\k{next(count)}", "v", 1, b"abc"),
            "delete": lambda: hive.delete_key("b"),
            "value": lambda: hive.value("a\\k7", "v"),
            "has": lambda: "a\\k8" in hive,
            "subkeys": lambda: [key.name for key in hive.key("a").subkeys()],
            "values": lambda: [key.values() for key in hive.root.subkeys()],
            "walk": lambda: [key.path for key in hive.walk()],
        }
    )
    assert Hive.open(hive.to_bytes()).value("a\\k7", "v").data == bytes(1000)


# ---- one thread: calls inside calls ----


class Intruder(ImageEntry):
    """An entry that makes a call when a reader asks for its ID, in the midst of another call."""

    __slots__ = ("call", "refused")
    call: Call
    refused: str

    @classmethod
    def of(cls, entry: ImageEntry, call: Call) -> Intruder:
        made = cls(*(getattr(entry, field.name) for field in fields(entry)))
        object.__setattr__(made, "call", call)
        object.__setattr__(made, "refused", "")
        return made

    def __getattribute__(self, name: str) -> Any:
        if name == "file_id":
            try:
                object.__getattribute__(self, "call")()
            except RuntimeError as error:
                object.__setattr__(self, "refused", str(error))
        return object.__getattribute__(self, name)


def test_no_call_of_a_reader_lets_it_be_closed(image: Path, tmp_path: Path) -> None:
    with ImageReader(image) as opened, ImageReader(tmp_path / "base.cim") as base:
        directory, file = opened.stat("d"), opened.stat("new")
        calls: list[tuple[ImageEntry, Callable[[Any], object]]] = [
            (directory, opened.listdir),
            (directory, lambda at: list(opened.walk(at))),
            (directory, lambda at: opened.compare_directories(at, base, "d", related=True)),
            (base.stat("d"), lambda at: base.compare_directories("d", opened, at, related=False)),
            (file, opened.streams),
            (file, opened.object_offsets),
            (file, opened.security_descriptor),
            (file, opened.extended_attributes),
            (file, opened.reparse_data),
            (file, opened.location),
            (file, opened.read),
            (file, opened.open),
        ]
        for entry, call in calls:
            intruder = Intruder.of(entry, opened.close)
            assert call(intruder) is not None
            assert intruder.refused == "a.cim: the image is in use"
        assert opened.verify(lambda _: opened.listdir("d") and None).ok


def test_what_outlives_its_reader_says_so(image: Path) -> None:
    with ImageReader(image) as opened:
        file, walk = opened.open("new"), opened.walk()
        next(walk)
    for call in (lambda: file.read(1), lambda: list(walk), lambda: opened.open("new"), opened.verify):
        with pytest.raises(ValueError, match="closed"):
            call()
    opened.close()


def test_a_writer_refuses_what_comes_between(tmp_path: Path) -> None:
    """One thread writes, which leaves the other one time, until a call of the other one has come in between."""
    image = writer(tmp_path, None, "a.cim")
    image.create_file("f", size=1 << 40)
    refused: set[str] = set()

    def write() -> None:
        for _ in range(1000):
            if refused:
                return
            image_writes(bytes(1 << 20))

    def image_writes(block: bytes) -> None:
        try:
            image.write(block)
        except RuntimeError as error:
            refused.add(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        image_writes(b"x")
    thread.join()
    assert refused == {"a.cim: the image is in use"}
    image.close()


def test_the_list_of_an_extraction_is_looked_at_once(image: Path, tmp_path: Path) -> None:
    extractor = pytest.importorskip("cimfs_ext.extractor")
    with ImageReader(image) as opened:

        class Clearing(tuple[int, bytes]):
            __slots__ = ()

            def __iter__(self) -> Iterator[Any]:
                wanted.clear()
                opened_refuses()
                return iter((opened.stat("new").file_id, bytes(bytearray(b"second"))))

        def opened_refuses() -> None:
            with pytest.raises(RuntimeError, match="in use"):
                opened.close()

        wanted: list[Any] = [(opened.stat("new").file_id, bytes(bytearray(b"first"))), Clearing(), (0, b"/")]
        directory = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(ValueError, match="not a file name"):
                extractor.FileExtractor(opened).write(directory, wanted)
            wanted[:] = [(opened.stat("new").file_id, b"first"), Clearing()]
            extractor.FileExtractor(opened).write(directory, wanted)
            for name in (bytearray(b"x"), "x", None, 7):
                with pytest.raises((TypeError, ValueError)):
                    extractor.FileExtractor(opened).write(directory, [(1, name)])
        finally:
            os.close(directory)
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes() == b"n" * 100_000


def test_a_tar_that_asks_its_own_index() -> None:
    refused: list[str] = []

    class File(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            try:
                next(index)
            except RuntimeError as error:
                refused.append(str(error))
            return super().read(size)

    index = tarindex.TarIndex(File(a_tar(3)), "x.tar")
    assert len(list(index)) == 3
    assert set(refused) == {"x.tar: the index is in use"}


# ---- objects that were never made, or are half made ----


def everything(made: object) -> Iterator[Call]:
    """The calls without arguments, and with odd ones, of all that an object has."""
    for name in dir(made):
        if name.startswith("__") and name not in ("__enter__", "__exit__", "__next__", "__iter__", "__contains__"):
            continue
        for arguments in (
            (),
            (None,),
            ("a",),
            (b"",),
            (-1,),
            (1 << 70,),
            ("a\0b", "c"),
            ("a", 1),
            (made, made),
            ("",) * 3,
        ):
            yield lambda name=name, arguments=arguments: getattr(made, name)(*arguments)  # type: ignore[misc]


def call_everything(made: object) -> None:
    for call in everything(made):
        try:
            found = call()
            if hasattr(found, "__next__"):
                list(found)
        except Exception:
            continue


def test_odd_arguments_in_odd_states(image: Path, tmp_path: Path) -> None:
    def closed(made: Any) -> Any:
        made.close()
        return made

    objects = [
        ImageReader(image),
        closed(ImageReader(image)),
        ImageReader(image).open("new"),
        reader._StreamCursor(ImageReader(image), "new", None),  # type: ignore[attr-defined]
        writer_alone(tmp_path),
        closed(writer_alone(tmp_path)),
        contentid.ContentHash(),
        backupstream.BackupStreamParser(3, "f"),
        tarindex.TarIndex(io.BytesIO(b"x" * 2000), "t"),
        implementation.choose("portable"),
        Hive.empty(0),
        Hive.empty(0).root,
        volumes,
        implementation,
    ]
    for made in objects:
        call_everything(made)
    with pytest.raises(ValueError, match="volume ID"):
        volumes.dismount(type("", (), {"bytes_le": b"short"})())
    with pytest.raises(OSError):
        volumes.dismount(UUID(int=1), implementation="portable")


def test_nothing_is_made_without_its_arguments(image: Path) -> None:
    kinds: list[Any] = [ImageReader, ImageWriter, backupstream.BackupStreamParser, tarindex.TarIndex]
    kinds += [implementation.Implementation, LayerImporter, Hive, reader._StreamCursor]  # type: ignore[attr-defined]
    for kind in kinds:
        for arguments in ((), (None,), (None, None), (None, None, None)):
            with pytest.raises((TypeError, AttributeError)):
                kind.__new__(kind, *arguments)
    opened = ImageReader(image)
    opened.__init__("elsewhere")  # type: ignore[misc]
    assert opened.name == "a.cim"
    assert opened.exists("new")


def test_objects_with_handles_are_not_copied(image: Path, tmp_path: Path) -> None:
    opened = ImageReader(image)
    objects = [
        opened,
        reader._StreamCursor(opened, "new", None),
        writer(tmp_path, None, "b.cim"),
        contentid.ContentHash(),
    ]
    objects += [backupstream.BackupStreamParser(0, "f"), tarindex.TarIndex(io.BytesIO(), "t"), Hive.empty(0)]
    objects += [implementation.choose("portable"), Hive.empty(0).root]
    for made in objects:
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                duplicate(made)


def test_an_image_that_is_found_while_it_is_opened(image: Path, tmp_path: Path) -> None:
    """A subclass makes a reader visible to the garbage collector, and with it to whoever looks there."""

    class Reader(ImageReader):
        pass

    class Writer(ImageWriter):
        pass

    seen = []

    class Name:
        def __init__(self, path: Path) -> None:
            self.path = path

        def __fspath__(self) -> str:
            for half_made in [found for found in gc.get_objects() if isinstance(found, Reader | Writer)]:
                seen.append(type(half_made).__name__)
                call_everything(half_made)
            return str(self.path)

    Reader(Name(image)).close()
    Writer(Name(tmp_path), None, "b.cim").close()
    assert set(seen) == {"Reader", "Writer"}
