"""What imports report, and how they are stopped: nothing half-made is left."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cimlayer
from cimlayer import tracing
from cimlayer.blobs.arrival import PIECE
from cimlayer.blobs.readahead import PieceReader
from cimlayer.blobs.streams import LayerStream
from cimlayer.errors import DigestMismatchError, FormatError, OperationCancelledError
from cimlayer.events import (
    CancellationToken,
    Event,
    LayerCommitting,
    LayerDone,
    LayerProgress,
    LayerReused,
    LayerStarted,
    LayerWarning,
    event_record,
)
from support.commands import is_drained, program, wait_until
from support.containers import HIVE, HIVES, OCI_LAYER, Layer, Store, base_tar, child_tar, gzipped, plain
from support.platforms import examples
from support.tars import TarBuilder, header, windows_pax

TAR = base_tar(**{"large.bin": os.urandom(5 << 20)})
ENTRIES = 6
SIZE = 5 * 8192 + (5 << 20)
JOBS = pytest.mark.parametrize("jobs", [1, 2])


def left(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def tar(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "layer.tar"
    path.write_bytes(TAR)
    yield path


# ---- events ----


@JOBS
def test_the_events_of_a_layer_come_in_order(tar: Path, tmp_path: Path, jobs: int) -> None:
    events: list[Event] = []
    threads = set()

    def note(event: Event) -> None:
        events.append(event)
        threads.add(threading.current_thread())

    cimlayer.import_layer(tar, tmp_path / "1", sync=False, jobs=jobs, progress=note)
    assert threads == {threading.current_thread()}
    assert events[0] == LayerStarted("1", None, 1, 1, len(TAR))
    progress = [event for event in events if isinstance(event, LayerProgress)]
    assert events[1:-2] == progress
    assert [event.bytes_read for event in progress] == [*range(PIECE, len(TAR), PIECE), len(TAR)]
    assert events[-2] == LayerCommitting("1", ENTRIES)
    done = events[-1]
    assert isinstance(done, LayerDone)
    assert (done.layer, done.entries, done.bytes) == ("1", ENTRIES, SIZE)
    assert done.seconds > 0


def test_progress_counts_compressed_bytes(tmp_path: Path) -> None:
    events: list[Event] = []
    blob = gzip.compress(TAR, 1)
    cimlayer.import_layer(io.BytesIO(blob), tmp_path / "1", sync=False, progress=events.append)
    read = [event.bytes_read for event in events if isinstance(event, LayerProgress)]
    assert read == sorted(read)
    assert read[-1] == len(blob)


def test_the_size_of_a_file_counts_from_where_it_stands(tar: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    tar.write_bytes(b"before" + TAR)
    with tar.open("rb") as file:
        file.seek(6)
        cimlayer.import_layer(file, tmp_path / "1", sync=False, progress=events.append)
    assert isinstance(events[0], LayerStarted)
    assert events[0].size == len(TAR)


@JOBS
def test_what_a_callback_raises_stops_the_import(tar: Path, tmp_path: Path, jobs: int) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, LayerProgress):
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        cimlayer.import_layer(tar, tmp_path / "1", jobs=jobs, progress=fail)
    assert left(tmp_path) == ["layer.tar"]


def test_records_are_json() -> None:
    events: list[Event] = [
        LayerStarted("1", "sha256:0", 1, 2, None),
        LayerProgress("1", 5),
        LayerCommitting("1", 3),
        LayerDone("1", 3, 4, 0.5),
        LayerReused("1", None, 1, 2, 3),
        LayerWarning("1", "a dirty hive"),
    ]
    records = [json.loads(json.dumps(event_record(event))) for event in events]
    assert [record["event"] for record in records] == [
        "layer-started",
        "layer-progress",
        "layer-committing",
        "layer-done",
        "layer-reused",
        "layer-warning",
    ]
    assert records[0] == {
        "event": "layer-started", "layer": "1", "digest": "sha256:0", "number": 1, "count": 2, "size": None
    }  # fmt: skip


def test_the_log_tells_of_layers(tar: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cimlayer"):
        cimlayer.import_layer(tar, tmp_path / "1", sync=False)
    assert [record.name for record in caplog.records] == ["cimlayer", "cimlayer"]
    assert f"{SIZE} bytes" in caplog.records[1].getMessage()


def test_spans_are_made_where_opentelemetry_is(tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[str, dict[str, object]]] = []

    class Tracer:
        def start_as_current_span(self, name: str, attributes: dict[str, object]) -> Span:
            spans.append((name, attributes))
            return Span()

    class Span:
        def __enter__(self) -> None: ...

        def __exit__(self, *exc_info: object) -> None: ...

    api = types.ModuleType("opentelemetry.trace")
    api.get_tracer = lambda name: Tracer()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry", types.ModuleType("opentelemetry"))
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", api)
    tracing._tracer.cache_clear()
    try:
        cimlayer.import_layer(tar, tmp_path / "1", sync=False)
    finally:
        tracing._tracer.cache_clear()
    assert spans == [("cimlayer.import_layer", {"cimlayer.layer": "1"})]


# ---- digests of single layers ----


@JOBS
@pytest.mark.parametrize("form", [gzipped, plain])
def test_a_layer_is_verified_in_the_same_pass(tmp_path: Path, form: type[Layer], jobs: int) -> None:
    layer: Layer = form(TAR)
    good = {"digest": layer.digest, "diff_id": layer.diff_id}
    size = cimlayer.import_layer(io.BytesIO(layer.blob), tmp_path / "1", sync=False, jobs=jobs, **good).bytes
    assert size == SIZE
    for wrong in (good | {"digest": f"sha256:{'0' * 64}"}, good | {"diff_id": f"sha512:{'0' * 128}"}):
        with pytest.raises(DigestMismatchError, match="0000"):
            cimlayer.import_layer(io.BytesIO(layer.blob), tmp_path / "2", jobs=jobs, **wrong)
    assert "2" not in os.listdir(tmp_path)
    assert os.listdir(tmp_path / "cim-layers").count("2.cim") == 0


def crowded_tar() -> bytes:
    """A layer with every kind of entry, so that a wrong bit can do as much as it can."""
    builder = TarBuilder()
    for name in HIVES:
        builder.file(f"Files/Windows/System32/config/{name}", HIVE)
    builder.directory("Files/a", pax=windows_pax(0x10, sddl="O:BAG:SYD:P(A;;FA;;;SY)"))
    builder.file("Files/a/x", b"x" * 700, pax=windows_pax(0x20, creation=1 << 56, eas={"A": b"value"}))
    builder.stream("Files/a/x", "zone:$DATA", b"stream")
    builder.file(f"Files/a/{'long' * 40}", b"long")
    builder.hardlink(f"Files/a/{'link' * 40}", f"Files/a/{'long' * 40}")
    builder.symlink("Files/a/s", "x", pax=windows_pax(0x420))
    builder.whiteout("Files/b")
    builder.opaque("Files/a")
    return builder.finish()


CROWDED = crowded_tar()
FORMS = {"plain": CROWDED, "gzip": gzip.compress(CROWDED, mtime=0), "stored": gzip.compress(CROWDED, 0, mtime=0)}


@settings(deadline=None, max_examples=examples(150))
@given(form=st.sampled_from(sorted(FORMS)), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_whatever_bit_is_wrong_the_digest_is_what_is_told(
    tmp_path_factory: pytest.TempPathFactory, form: str, place: float, bit: int
) -> None:
    root = tmp_path_factory.getbasetemp() / "bits"
    root.mkdir(exist_ok=True)
    blob = FORMS[form]
    damaged = bytearray(blob)
    damaged[int(place * len(blob))] ^= 1 << bit
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    with pytest.raises(DigestMismatchError, match=digest):
        cimlayer.import_layer(io.BytesIO(damaged), root / "1", digest=digest, sync=False, jobs=1)
    assert left(root) == []


def test_a_malformed_digest_is_refused_before_anything_is_made(tar: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="diff_id"):
        cimlayer.import_layer(tar, tmp_path / "1", diff_id="0" * 64)
    assert left(tmp_path) == ["layer.tar"]


# ---- cancelling ----


def test_a_token_is_cancelled_with_its_parent_and_alone() -> None:
    parent = CancellationToken()
    child = CancellationToken(parent)
    sibling = CancellationToken(parent)
    child.cancel()
    assert (child.cancelled, sibling.cancelled, parent.cancelled) == (True, False, False)
    parent.cancel()
    assert sibling.cancelled
    with pytest.raises(OperationCancelledError):
        sibling.raise_if_cancelled()


@JOBS
@pytest.mark.parametrize("kind", [LayerStarted, LayerProgress, LayerCommitting])
def test_a_cancelled_import_leaves_nothing(tar: Path, tmp_path: Path, kind: type[Event], jobs: int) -> None:
    token = CancellationToken()

    def cancel(event: Event) -> None:
        if isinstance(event, kind):
            token.cancel()

    with pytest.raises(OperationCancelledError):
        cimlayer.import_layer(tar, tmp_path / "1", jobs=jobs, progress=cancel, cancel=token)
    assert left(tmp_path) == ["layer.tar"]


def test_a_cancelled_image_keeps_the_layers_that_were_done(tmp_path: Path) -> None:
    token = CancellationToken()
    store = Store()
    source = store.layout(tmp_path / "source", [store.image([gzipped(TAR), plain(child_tar(a=b"a" * 9_000_000))])])

    def cancel(event: Event) -> None:
        if isinstance(event, LayerStarted) and event.number == 2:
            token.cancel()

    with pytest.raises(OperationCancelledError):
        cimlayer.import_image(source, tmp_path / "layers", progress=cancel, cancel=token)
    (name,) = {path.name for path in (tmp_path / "layers").iterdir()} - {"cim-layers"}
    assert [path.name for path in (tmp_path / "layers" / "cim-layers").glob("*.cim")] == [f"{name}.cim"]
    result = cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert [layer.reused for layer in result.layers] == [True, False]


class Silent(io.RawIOBase):
    """A file of somebody else's whose next bytes never come."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.released = threading.Event()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        self.asked.set()
        self.released.wait()
        return 0


def test_an_import_that_waits_for_a_foreign_file_is_cancelled_soon(tmp_path: Path) -> None:
    token, silent = CancellationToken(), Silent()

    def cancel() -> None:
        silent.asked.wait()
        token.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        with pytest.raises(OperationCancelledError):  # although the file is silent until then
            cimlayer.import_layer(silent, tmp_path / "1", jobs=2, cancel=token)
    finally:
        silent.released.set()
        canceller.join()
    assert left(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="only POSIX can wait for a pipe and for something else")
@JOBS
def test_an_import_that_waits_for_a_pipe_is_cancelled_soon(tmp_path: Path, jobs: int) -> None:
    token = CancellationToken()
    source, sink = os.pipe()
    with open(source, "rb", buffering=0) as pipe, open(sink, "wb", buffering=0) as feeder:

        def cancel() -> None:
            wait_until(lambda: is_drained(pipe))
            token.cancel()

        feeder.write(TAR[:1000])
        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(OperationCancelledError):
            cimlayer.import_layer(pipe, tmp_path / "1", jobs=jobs, cancel=token)
        canceller.join()
        threads = [thread.name for thread in threading.enumerate()]
        assert "cimlayer-read" not in threads
    assert left(tmp_path) == []


def test_an_interrupt_right_behind_the_commit_leaves_a_whole_layer(tmp_path: Path) -> None:
    class Interrupted:
        """An image whose commit returns into a Ctrl-C."""

        def __init__(self, image: cimlayer.ImageWriter) -> None:
            self._image = image

        def __getattr__(self, name: str) -> object:
            return getattr(self._image, name)

        def commit(self) -> None:
            self._image.commit()
            raise KeyboardInterrupt

    cimlayer.import_layer(io.BytesIO(TAR), tmp_path / "1", sync=False)
    with pytest.raises(KeyboardInterrupt), cimlayer.CimLayerWriter(tmp_path / "2", [tmp_path / "1"]) as writer:
        writer.image = Interrupted(writer.image)  # type: ignore[assignment]
        writer.standard.directory.write("note", b"kept")
    assert cimlayer.is_cim_layer(tmp_path / "2")
    assert (tmp_path / "2" / "note").read_bytes() == b"kept"


# ---- reading ahead ----


def test_reading_goes_on_into_the_next_stream_but_not_beyond_its_bound() -> None:
    class Counted(io.BytesIO):
        taken = 0

        def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
            count = super().readinto(buffer)
            self.taken += count
            return count

    reading = CancellationToken()
    blobs = [Counted(bytes(PIECE)), Counted(bytes(10 * PIECE))]
    streams = (contextlib.nullcontext(LayerStream(blob, cancel=reading)) for blob in blobs)
    with PieceReader(streams, reading, jobs=2, ahead=4) as reader:
        first = reader.pieces()
        next(first)
        wait_until(lambda: blobs[1].taken >= 3 * PIECE)
        assert blobs[1].taken == 3 * PIECE
        assert list(first) == []
        assert sum(len(data) for data, _ in reader.pieces()) == 10 * PIECE
    assert reading.cancelled


# ---- programs ----

HANGUP = getattr(signal, "SIGHUP", 1)
posix_only = pytest.mark.skipif(os.name != "posix", reason="another way to interrupt on Windows")


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout whose second layer has a file of 4 GiB; nobody gets to see that its digests are wrong."""
    builder = TarBuilder()
    builder.raw(header(b"Files/huge.bin", 4 << 30))
    piece = b"".join(os.urandom(32) * 128 for _ in range(256))
    blob = gzip.compress(builder.finish(end=b""), 1) + gzip.compress(piece, 6) * ((4 << 30) // len(piece))
    store = Store()
    layers = [gzipped(base_tar()), Layer(b"not that", blob, f"{OCI_LAYER}+gzip")]
    return store.layout(tmp_path_factory.mktemp("huge"), [store.image(layers)])


@posix_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (HANGUP, 129)])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_signal_ends_a_running_import_soon_and_cleanly(
    huge: Path, tmp_path: Path, number: signal.Signals, code: int, jobs: str
) -> None:
    layers = tmp_path / "layers"
    with subprocess.Popen(
        program("import-image", huge, layers, "--jobs", jobs, "--no-sync"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr and process.stdout

        def is_half_way() -> bool:
            regions = layers.glob("cim-layers/region_*")
            return sum(path.stat().st_size for path in regions if path.exists()) > 20 << 20

        wait_until(is_half_way, process)
        process.send_signal(number)
        assert process.wait(60) == code
        lines = process.stderr.read().decode().splitlines()
        assert process.stdout.read() == b""
    assert [line.split()[:4] for line in lines] == [["layer", "1", "of", "2"]]
    (base,) = (layers / "cim-layers").glob("*.cim")
    assert {path.name for path in layers.iterdir()} == {base.stem, "cim-layers"}
    with cimlayer.ImageReader(base) as image:
        own = image.region_sets[-1].file_names()
        assert image.verify().ok
    assert {path.name for path in (layers / "cim-layers").iterdir()} <= {base.name, *own}


@posix_only
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_an_import_that_waits_for_input(tmp_path: Path, jobs: str) -> None:
    with subprocess.Popen(
        program("import", "-", tmp_path / "1", "--jobs", jobs), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stderr
        process.stdin.write(TAR[:100_000])
        process.stdin.flush()
        stdin = process.stdin
        wait_until(lambda: bool(list(tmp_path.glob("cim-layers/region_*"))) and is_drained(stdin), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""
    assert left(tmp_path) == []
