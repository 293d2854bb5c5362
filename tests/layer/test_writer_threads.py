"""Whoever calls what in which order, from any thread, signal handler, finalizer or callback: never a crash."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cimfs_ext.backupstream import BackupStreamWriter as Stream
from cimfs_ext.builder import Guard, LayerBuilder
from cimfs_ext.image import ImageWriter
from cimfs_ext.importer import LayerImporter
from cimlayer import CimLayerWriter, FileBasicInfo, destroy_cim_layer, import_layer
from cimlayer.errors import ImageError
from cimlayer.formats.fileinfo import NO_ATTACHMENTS
from cimlayer.layer.standard import HIVES
from support import cimoracle, layers
from support.layers import NULL_DACL
from support.tars import TarBuilder

FILE = FileBasicInfo.at(0, 0x20)
SIZE = 1 << 20
THREADS = 8


def big_tar() -> bytes:
    tar = TarBuilder()
    for number in range(20):
        tar.file(f"Files/{number}", os.urandom(100_000), pax={"MSWINDOWS.sd": f"D:(A;;{number + 1:#x};;;WD)"})
    return tar.finish()


BIG_TAR = big_tar()


class Handler:
    """Runs an action at every descriptor that an importer asks for."""

    def __init__(self, action: Callable[[], object] = lambda: None) -> None:
        self.action = action

    def descriptor_from_sddl(self, _: str) -> bytes:
        self.action()
        return NULL_DACL


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layer = tmp_path_factory.mktemp("layers") / "base"
    tar = TarBuilder()
    layers.add_base_hives(tar)
    tar.file("Files/x", b"base x")
    import_layer(io.BytesIO(tar.finish()), layer, sync=False)
    return layer


@pytest.fixture
def writer(base: Path) -> Iterator[CimLayerWriter]:
    with CimLayerWriter(base.parent / "child", [base], sync=False) as made:
        yield made
        made.abandon()
    destroy_cim_layer(base.parent / "child")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[ImageWriter]:
    with ImageWriter(tmp_path, None, "a.cim", sync=False) as made:
        yield made


def at_once(calls: list[Callable[[], object]]) -> Counter[str]:
    """Each call in a thread of its own, begun together; the names of what they raised."""
    raised: Counter[str] = Counter()
    begin = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        begin.wait()
        try:
            call()
        except Exception as error:
            raised[type(error).__name__] += 1

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


EXPECTED = {"RuntimeError", "ValueError", "FormatError", "StreamEndError", "ImageBusyError"}


def test_a_guard_lets_one_call_in_at_a_time() -> None:
    guard = Guard("a", "thing")
    with guard:
        with pytest.raises(RuntimeError, match="a: the thing is in use"), guard:
            pytest.fail("a second call is in")
        with pytest.raises(RuntimeError), guard:
            pytest.fail("the second call has let go of the first one's guard")
    with guard:
        pass


def calls_on(writer: CimLayerWriter) -> dict[str, Callable[[], object]]:
    return {
        "add": lambda: writer.add(r"Files\y", FILE, 0),
        "add_alternate_stream": lambda: writer.add_alternate_stream(r"Files\x:s", 0),
        "add_link": lambda: writer.add_link(r"Files\l", r"Files\x"),
        "remove": lambda: writer.remove(r"Files\x"),
        "remove_contents": lambda: writer.remove_contents("Files"),
        "write": lambda: writer.write(b"x"),
        "close": writer.close,
        "abandon": writer.abandon,
    }


@pytest.mark.parametrize(
    "name", ["add", "add_alternate_stream", "add_link", "remove", "remove_contents", "write", "close", "abandon"]
)
def test_a_call_inside_another_one_is_refused_and_harms_nothing(
    writer: CimLayerWriter, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As a signal handler or a finalizer would call it, in the middle of a write."""
    refused: list[BaseException] = []
    writer.add(r"Files\f", FILE, 3)
    item = writer._item
    assert item is not None
    original = item.write

    def interrupted(data: bytes | bytearray | memoryview) -> None:
        try:
            calls_on(writer)[name]()
        except RuntimeError as error:
            refused.append(error)
        original(data)

    monkeypatch.setattr(item, "write", interrupted)
    for piece in Stream.data(b"abc"):
        writer.write(piece)
    writer.close()
    assert len(refused) == 2
    assert all("layer writer is in use" in str(error) for error in refused)


@pytest.mark.parametrize("name", ["add", "add_link", "remove", "write", "close", "abandon"])
def test_a_second_thread_in_a_busy_writer_is_refused(writer: CimLayerWriter, name: str) -> None:
    writer.add(r"Files\f", FILE, 16 * SIZE)
    header = b"".join(Stream.data(b""))[:8] + (16 * SIZE).to_bytes(8, "little") + bytes(4)

    def write_all() -> None:
        writer.write(header)
        for _ in range(16):
            writer.write(bytes(SIZE))

    raised = at_once([write_all, *([calls_on(writer)[name]] * (THREADS - 1))])
    assert set(raised) <= EXPECTED


def test_every_call_at_once_from_many_threads(base: Path) -> None:
    for round_ in range(3):
        writer = CimLayerWriter(base.parent / f"all-{round_}", [base], sync=False)
        calls = calls_on(writer)
        writer.add(HIVES[0].path, FILE, 0)
        raised = at_once([*calls.values()])
        assert set(raised) <= EXPECTED
        writer.abandon()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["write", "close", "abandon"])
def test_a_signal_handler_may_call_anything(writer: CimLayerWriter, name: str) -> None:
    raised: list[BaseException] = []

    def handler(*_: object) -> None:
        try:
            calls_on(writer)[name]()
        except (RuntimeError, ValueError) as error:
            raised.append(error)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        for number in range(200):
            if writer.image.closed:
                break
            try:
                writer.add(rf"Files\{number}", FILE, 2000)
                for piece in Stream.data(bytes(2000)):
                    writer.write(piece)
            except (ValueError, OSError):  # the handler has closed it, or written what does not belong there
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(isinstance(error, (RuntimeError, ValueError)) for error in raised)


# ---- the importer ----


def test_closing_an_image_below_an_importer_is_refused_or_seen(tmp_path: Path) -> None:
    for number in range(5):
        image = ImageWriter(tmp_path, None, f"{number}.cim", sync=False)
        importer = LayerImporter(image, Handler(), [])
        raised = at_once([lambda i=importer: i.feed(BIG_TAR), *([image.close] * (THREADS - 1))])  # type: ignore[misc]
        assert set(raised) <= {"RuntimeError", "ValueError"}
        image.close()


def test_feeding_from_many_threads(image: ImageWriter) -> None:
    importer = LayerImporter(image, Handler(), [])
    raised = at_once([lambda: importer.feed(BIG_TAR[:-1024])] * THREADS)
    assert set(raised) <= {"RuntimeError"}


@pytest.mark.parametrize("call", ["feed", "finish"])
def test_a_handler_that_calls_the_importer_is_refused(image: ImageWriter, call: str) -> None:
    handler = Handler()
    importer = LayerImporter(image, handler, [])
    handler.action = {"feed": lambda: importer.feed(BIG_TAR), "finish": importer.finish}[call]
    with pytest.raises(RuntimeError, match="importer is in use"):
        importer.feed(BIG_TAR)
    with pytest.raises(ImageError):
        importer.feed(BIG_TAR)  # the rest of what was fed is lost


def test_a_handler_may_use_the_builder_and_the_image(tmp_path: Path) -> None:
    with ImageWriter(tmp_path, None, "a.cim", sync=False, time=0) as image:
        builder = LayerBuilder(image)
        made: list[str] = []

        def make() -> None:
            made.append(f"made\\{len(made)}")
            builder.create(made[-1], FILE, 0, NO_ATTACHMENTS)
            assert not builder.was_added(made[-1])

        importer = LayerImporter(builder, Handler(make))
        importer.feed(BIG_TAR)
        importer.finish()
        image.commit()
    found = image_of_file(tmp_path)
    assert len(made) == 20
    assert {*made, *(f"Files\\{number}" for number in range(20))} <= found.keys()
    assert all(len(found[f"Files\\{number}"]) == 100_000 for number in range(20))


def image_of_file(directory: Path) -> dict[str, bytes]:
    return {path: entry.data for path, entry in cimoracle.read_image(directory, "a.cim").items()}


def test_a_stream_that_somebody_else_closed_is_an_error(image: ImageWriter) -> None:
    importer = LayerImporter(image, Handler(), [])
    importer.feed(BIG_TAR[:50_000])
    image.close_stream()
    with pytest.raises(ImageError):
        importer.feed(BIG_TAR[50_000:])


def test_a_builder_of_a_closed_image_is_closed(image: ImageWriter) -> None:
    builder = LayerBuilder(image, has_parent=True)
    image.close()
    calls: list[Callable[[], object]] = [
        lambda: builder.add("x", 0),
        lambda: builder.link("x", "y"),
        lambda: builder.remove("x"),
        lambda: builder.add_stream("x:s", 0),
        lambda: builder.create("x", FILE, 0, NO_ATTACHMENTS),
        lambda: builder.make_link("x", "y"),
        lambda: builder.check_descriptor("x", b""),
        lambda: builder.was_added("x"),
        lambda: builder.was_described("x"),
        lambda: LayerBuilder(image),
        lambda: LayerImporter(builder, Handler()).feed(b"x"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="the image is closed"):
            call()
