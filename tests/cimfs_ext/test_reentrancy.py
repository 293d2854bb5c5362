"""Calls that overlap: one thread: calls inside calls, objects that were never made, or are half made."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cimfs_ext import backupstream, contentid, cursor, implementation, tarindex, volumes
from cimfs_ext.entries import ImageEntry
from cimfs_ext.image import ImageWriter
from cimfs_ext.importer import LayerImporter
from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive
from support.images import writer
from support.platforms import posix_only, same_everywhere
from support.threaded import (
    Call,
    a_tar,
    image,  # noqa: F401  fixtures
    writer_alone,
)

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


@posix_only("calls relative to a directory")
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


@same_everywhere
def test_odd_arguments_in_odd_states(image: Path, tmp_path: Path) -> None:
    def closed(made: Any) -> Any:
        made.close()
        return made

    objects = [
        ImageReader(image),
        closed(ImageReader(image)),
        ImageReader(image).open("new"),
        cursor.StreamCursor(ImageReader(image), "new", None),
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
    kinds += [implementation.Implementation, LayerImporter, Hive, cursor.StreamCursor]
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
        cursor.StreamCursor(opened, "new", None),
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
