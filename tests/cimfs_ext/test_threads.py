"""Calls that overlap: many threads."""

from __future__ import annotations

import io
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cimfs_ext import backupstream, contentid, crc32c, cursor, names, tarindex
from cimfs_ext.importer import LayerImporter
from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive
from support.images import DIRECTORY
from support.threaded import (
    Call,
    a_tar,
    image,  # noqa: F401  fixtures
    writer_alone,
)

THREADS = 8


ROUNDS = int(os.environ.get("CIMLAYER_THREAD_ROUNDS", "150"))


@pytest.fixture(autouse=True)
def _many_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


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
            "renew file": lambda: file.__init__(cursor.StreamCursor(opened.current, "new", None)),  # type: ignore
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
