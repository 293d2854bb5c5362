"""Layer tars imported, read by an independent reader: sources, bounds, the importer by itself."""

from __future__ import annotations

import base64
import gzip
import io
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cimlayer
from cimfs_ext.importer import LayerImporter
from cimlayer.errors import FormatError, ImageError, OperationCancelledError
from support import tars
from support.images import NULL_DACL, read_files, writer
from support.imports import add, described, fails, imported_base, model, root  # noqa: F401  fixtures
from support.layers import Model, snapshot
from support.platforms import WINDOWS, posix_only
from support.tars import TarBuilder

# ---- sources ----


def big_tar() -> bytes:
    tar = TarBuilder()
    rng = random.Random(1)
    for n in range(40):
        tar.file(f"Files/big/{n}", rng.randbytes(100_003))
    return tar.finish()


def zstd(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd as module
    else:
        from backports import zstd as module
    return module.compress(data)


def skippable_frame(data: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip members": lambda data: b"".join(gzip.compress(data[at : at + 70_001]) for at in range(0, len(data), 70_001)),
    "zstd": zstd,
    "zstd frames": lambda data: zstd(data[:99_999]) + skippable_frame(b"note") + zstd(data[99_999:]),
    "zstd after a skippable frame": lambda data: skippable_frame(b"note") + zstd(data),
}


class Trickle(io.RawIOBase):
    """Gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.inner = io.BytesIO(data)
        self.rng = random.Random(2)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self.inner.read(min(len(buffer), self.rng.choice((1, 3, 511, 4096, 65_536))))
        buffer[: len(piece)] = piece
        return len(piece)


class ReadOnly:
    """No more than a method `read`."""

    def __init__(self, data: bytes) -> None:
        self.inner = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self.inner.read(min(size, 9999) if size >= 0 else -1)


@pytest.fixture(scope="module")
def expected(
    imported_base: tuple[Path, Model], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, bytes]]:
    """The bytes of the layer that every source must give."""
    root = tmp_path_factory.mktemp("expected")
    shutil.copytree(imported_base[0], root, dirs_exist_ok=True)
    add(root, big_tar())
    return snapshot(root)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_compression_and_number_of_jobs_gives_the_same_bytes(
    root: Path, expected: dict[str, tuple[str, bytes]], encoding: str, jobs: int
) -> None:
    file = root.parent / f"{root.name}.tar"
    file.write_bytes(ENCODINGS[encoding](big_tar()))
    size = cimlayer.import_layer(file, root / "child", [root / "base"], sync=False, reproducible=True, jobs=jobs).bytes
    file.unlink()
    assert size == 40 * 100_003
    assert snapshot(root) == expected


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("make", [Trickle, ReadOnly])
@pytest.mark.parametrize("encoding", ["plain", "gzip", "zstd"])
def test_file_objects_with_short_reads_are_taken(
    root: Path, expected: dict[str, tuple[str, bytes]], make: type, encoding: str, jobs: int
) -> None:
    source = make(ENCODINGS[encoding](big_tar()))
    cimlayer.import_layer(source, root / "child", [root / "base"], sync=False, reproducible=True, jobs=jobs)
    assert snapshot(root) == expected


def test_pipe_is_taken(root: Path, expected: dict[str, tuple[str, bytes]]) -> None:
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(big_tar())

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb") as pipe:
        cimlayer.import_layer(pipe, root / "child", [root / "base"], sync=False, reproducible=True)
    thread.join()
    assert snapshot(root) == expected


@pytest.mark.parametrize("jobs", [1, 2])
def test_stream_that_holds_more_than_its_descriptor_tells_is_read(
    root: Path, expected: dict[str, tuple[str, bytes]], jobs: int
) -> None:
    class Deciphered(Trickle):
        """As an unbuffered file of a TLS socket."""

        def fileno(self) -> int:
            return reading

    reading, writing = os.pipe()
    cancel = cimlayer.CancellationToken()
    guard = threading.Timer(30, cancel.cancel)
    guard.start()
    try:
        source = Deciphered(big_tar())
        cimlayer.import_layer(
            source, root / "child", [root / "base"], sync=False, reproducible=True, jobs=jobs, cancel=cancel
        )
    finally:
        guard.cancel()
        os.close(reading)
        os.close(writing)
    assert snapshot(root) == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_pipe_that_nobody_writes_to_yet_is_waited_for_until_cancelled(
    root: Path, expected: dict[str, tuple[str, bytes]]
) -> None:
    os.mkfifo(root / "pipe")
    cancel = cimlayer.CancellationToken()
    threading.Timer(0.2, cancel.cancel).start()
    with pytest.raises(OperationCancelledError):
        cimlayer.import_layer(root / "pipe", root / "a" / "child", [], cancel=cancel)
    writing = threading.Timer(0.2, lambda: (root / "pipe").write_bytes(big_tar()))
    writing.start()
    cimlayer.import_layer(root / "pipe", root / "child", [root / "base"], sync=False, reproducible=True)
    writing.join()
    (root / "pipe").unlink()
    assert snapshot(root) == expected


def test_standard_input_is_taken(root: Path, expected: dict[str, tuple[str, bytes]]) -> None:
    program = (
        "import cimlayer, sys;cimlayer.import_layer('-', sys.argv[1], [sys.argv[2]], sync=False, reproducible=True)"
    )
    subprocess.run(
        [sys.executable, "-c", program, root / "child", root / "base"], input=gzip.compress(big_tar()), check=True
    )
    assert snapshot(root) == expected


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "changed", "cut in the header"])
def test_damaged_compression_is_an_error_that_leaves_nothing(root: Path, encoding: str, damage: str, jobs: int) -> None:
    data = bytearray(ENCODINGS[encoding](big_tar()))
    if damage == "changed":
        data[len(data) // 2] ^= 0xFF
        data[len(data) // 2 + 1] ^= 0xFF
        data[-3] ^= 0xFF
    else:
        del data[len(data) // 2 if damage == "cut" else 6 :]
    before = snapshot(root)
    with pytest.raises(FormatError):
        cimlayer.import_layer(io.BytesIO(data), root / "child", [root / "base"], jobs=jobs)
    assert snapshot(root) == before


@pytest.mark.parametrize("jobs", [1, 2])
def test_error_of_the_source_is_raised_and_leaves_nothing(root: Path, jobs: int) -> None:
    class Failing(Trickle):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            if self.inner.tell() > 1 << 20:
                raise OSError(5, "the disk is gone")
            return super().readinto(buffer)

    before = snapshot(root)
    with pytest.raises(OSError, match="the disk is gone"):
        cimlayer.import_layer(Failing(big_tar()), root / "child", [root / "base"], jobs=jobs)  # type: ignore[arg-type]
    assert snapshot(root) == before


@pytest.mark.skipif(WINDOWS, reason="only POSIX can wait for a pipe and for something else")
def test_source_that_does_not_block_is_waited_for(root: Path, expected: dict[str, tuple[str, bytes]]) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def feed() -> None:
        data = big_tar()
        with os.fdopen(writing, "wb") as pipe:
            for half in (data[: len(data) // 2], data[len(data) // 2 :]):
                pipe.write(half)
                pipe.flush()
                threading.Event().wait(0.1)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as source:
        cimlayer.import_layer(source, root / "child", [root / "base"], sync=False, reproducible=True)
    thread.join()
    assert snapshot(root) == expected


def test_error_in_the_tar_does_not_wait_for_the_end_of_a_pipe(root: Path) -> None:
    class Endless(io.RawIOBase):
        """An archive with a bad entry, followed by bytes without end that come slowly."""

        def __init__(self) -> None:
            super().__init__()
            bad = TarBuilder()
            bad.node("fifo", tars.FIFO)
            self.archive = io.BytesIO(bad.finish(end=b"").ljust(1 << 20, b"\1"))
            self.reads = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            self.reads += 1
            count = self.archive.readinto(buffer)
            if count == 0:
                threading.Event().wait(0.05)
                buffer[0], count = 1, 1
            return count

    source = Endless()
    with pytest.raises(FormatError, match="FIFO"):
        cimlayer.import_layer(source, root / "child", [root / "base"], jobs=2)  # type: ignore[arg-type]
    assert source.reads < 100


# ---- bounds ----


MEASURE = """
import resource, sys
import cimlayer
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    cimlayer.import_layer("-", sys.argv[1], [sys.argv[2]], sync=False, jobs=int(sys.argv[3]))
except cimlayer.errors.FormatError as error:
    print("refused", error, file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def growth(root: Path, pieces: Iterator[bytes], jobs: int = 2) -> int:
    """MiB by which a process grows that imports what comes through a pipe."""
    command = [sys.executable, "-c", MEASURE, root / "child", root / "base", str(jobs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for piece in pieces:
                process.stdin.write(piece)
            process.stdin.close()
        except BrokenPipeError:
            pass
        answer = process.stdout.read()
    assert process.returncode == 0
    return int(answer) >> 10


@posix_only("memory is measured with getrusage")
def test_memory_does_not_grow_with_the_size_of_files(root: Path) -> None:
    def tar() -> Iterator[bytes]:
        yield tars.header(b"Files/huge", 300 << 20)
        for n in range(300):
            yield n.to_bytes(4, "little") * (1 << 18)
        yield bytes(1024)

    assert growth(root, tar()) < 40


@posix_only("memory is measured with getrusage")
def test_memory_for_headers_of_records_is_bounded(root: Path) -> None:
    record = tars.pax_record("comment", "c" * ((8 << 20) - 100))

    def tar() -> Iterator[bytes]:
        for n in range(12):
            for kind in (tars.PAX_GLOBAL, tars.PAX_FILE):
                yield tars.header(b"x", len(record), kind) + tars.padded(record)
            yield tars.header(f"Files/{n}".encode())
        yield bytes(1024)

    assert growth(root, tar()) < 60


def test_records_beyond_all_limits_are_refused(root: Path) -> None:
    fails(root, tars.header(b"x", (8 << 20) + 1, tars.PAX_FILE), "8 MiB", offset=0)
    tar = TarBuilder()
    tar.pax_global({"path": "x" * 8_193})
    fails(root, tar, "8,192", offset=0)
    tar = TarBuilder()
    for n in range(10):  # all of which hold for what follows
        tar.pax_global({f"MSWINDOWS.xattr.{n}.{i:04}": "QQ==" for i in range(100)})
    fails(root, tar, "8,192")


@posix_only("memory is measured with getrusage")
def test_many_entries_of_one_name_are_cheap(root: Path) -> None:
    entry = tars.header(b"Files/same")

    def tar() -> Iterator[bytes]:
        for _ in range(50):
            yield entry * 2000
        yield bytes(1024)

    assert growth(root, tar(), jobs=1) < 60


def attribute_records(attributes: dict[str, str]) -> dict[str, str]:
    return {f"MSWINDOWS.xattr.{name}": base64.b64encode(value.encode()).decode() for name, value in attributes.items()}


@pytest.mark.parametrize(
    ("globals_", "local", "expected"),
    [
        ([{"c": "1", "a": "2", "b": "3"}], {}, {"a": "2", "b": "3", "c": "1"}),
        ([], {"c": "1", "a": "2"}, {"a": "2", "c": "1"}),
        ([{"c": "1", "a": "2"}], {"d": "4", "b": "3"}, {"a": "2", "b": "3", "c": "1", "d": "4"}),
        ([{"c": "1", "a": "2"}], {"c": "5"}, {"a": "2", "c": "5"}),
        ([{"c": "1", "a": "2"}], {"c": ""}, {"a": "2"}),
        ([{"c": "1", "a": "2"}, {"b": "3", "a": "4"}], {"ab": "5"}, {"a": "4", "ab": "5", "b": "3", "c": "1"}),
        ([{"c": "1", "a": "2"}, {"a": ""}], {"b": "3"}, {"b": "3", "c": "1"}),
        ([{"c": "1", "a": "2"}, {"a": ""}, {"a": "3"}], {}, {"a": "3", "c": "1"}),
    ],
)
def test_attributes_of_all_entries_and_of_one(
    root: Path, globals_: list[dict[str, str]], local: dict[str, str], expected: dict[str, str]
) -> None:
    """By name; of one name the latest counts, and those of the entry come after all others."""
    tar = TarBuilder()
    for attributes in globals_:
        tar.pax_global(attribute_records(attributes))
    for n in range(2):
        tar.file(f"Files/{n}", pax=attribute_records(local))
    add(root, tar)
    with cimlayer.ImageReader(root / "cim-layers" / "child.cim") as image:
        for n in range(2):
            assert list(attributes_in(image.extended_attributes(rf"Files\{n}")).items()) == list(expected.items())


def attributes_in(data: bytes) -> dict[str, str]:
    """The names and values of a FILE_FULL_EA_INFORMATION list."""
    found = {}
    while data:
        following, _, name_size, value_size = struct.unpack_from("<IBBH", data)
        name, value = data[8 : 8 + name_size], data[9 + name_size : 9 + name_size + value_size]
        found[name.decode()] = value.decode()
        data = data[following:] if following else b""
    return found


# ---- the importer by itself ----


class Handler:
    """Answers as it is told."""

    def __init__(self, **answers: Callable[..., object]) -> None:
        self.__dict__.update(answers)


def refuse(*_: object) -> bytes:
    raise ValueError("not this one")


def test_what_the_handler_refused_is_not_gone_on_with(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        importer = LayerImporter(image, Handler(descriptor_from_sddl=refuse), [])
        with pytest.raises(FormatError, match="not this one"):
            importer.feed(described("f"))
        for call in (lambda: importer.feed(bytes(1024)), importer.finish):
            with pytest.raises(ImageError):
                call()
        image.commit()
    assert read_files(tmp_path / "a.cim") == {}


def test_a_handler_may_close_the_image(tmp_path: Path) -> None:
    image = writer(tmp_path, None, "a.cim")

    def close(_: object) -> bytes:
        image.close()
        return NULL_DACL

    importer = LayerImporter(image, Handler(descriptor_from_sddl=close), [])
    with pytest.raises(ValueError, match="closed"):
        importer.feed(described("f"))


def test_an_importer_needs_an_image() -> None:
    with pytest.raises(TypeError):
        LayerImporter(None, None, [])


def test_an_importer_has_a_limit_of_standard_files(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        LayerImporter(image, None, [f"file{number}" for number in range(64)])
        with pytest.raises(ValueError, match="64"):
            LayerImporter(image, None, [f"file{number}" for number in range(65)])
