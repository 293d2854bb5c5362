"""Many images into one store: with threads, processes, workers that die, images that fail, and others beside."""

from __future__ import annotations

import errno
import gzip
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cimlayer import (
    CancellationToken,
    DigestMismatchError,
    Event,
    FormatError,
    ImageResult,
    LayerDone,
    LayerReused,
    LayerStarted,
    LayerStore,
    LayerWarning,
    OperationCancelledError,
    import_image,
    import_images,
)
from support import ROOT
from support.commands import wait_until
from support.containers import (
    Layer,
    Store,
    base_tar,
    chain_ids,
    child_tar,
    docker_files,
    gzipped,
    packed,
    plain,
    tar_of,
    write,
)
from support.fleets import Immediate, assert_clean, distinct, endless, failing, family, killing, layout_of
from support.platforms import WINDOWS, needs_kill

BASE, CHILD = gzipped(base_tar(a=os.urandom(20_000))), gzipped(child_tar(b=os.urandom(20_000)))
LAYERS = [BASE, CHILD, plain(child_tar(top=b"x" * 3000))]
TOPS = [plain(child_tar(**{f"top{number}": b"x" * 3000})) for number in range(4)]


def images(root: Path, count: int = 4) -> list[Path]:
    return [layout_of(root / str(number), [BASE, CHILD, TOPS[number]]) for number in range(count)]


def run(sources: Any, store: Path, executor: Executor | None = None, **options: Any) -> list[ImageResult]:
    """The results in the order of the sources."""
    options = {"sync": False, "workers": 2, **options}
    return sorted(import_images(sources, store, executor, **options), key=lambda result: result.number)


def spoil(source: Path, layer: Layer) -> None:
    path = source / "blobs" / layer.digest.replace(":", "/")
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def threads() -> Executor:
    return ThreadPoolExecutor(2)


def processes() -> Executor:
    return ProcessPoolExecutor(2, multiprocessing.get_context("spawn" if WINDOWS else "forkserver"))


@pytest.mark.parametrize("make", [threads, processes, lambda: None])
def test_each_layer_is_imported_once_whatever_images_share_it(
    tmp_path: Path, make: Callable[[], Executor | None]
) -> None:
    sources = family(tmp_path / "sources", 8)
    events: list[Event] = []
    executor = make()
    try:
        results = run(sources, tmp_path / "store", executor, progress=events.append)
    finally:
        if executor is not None:
            executor.shutdown()
    assert [result.error for result in results] == [None] * 8
    assert [result.source for result in results] == sources
    done = [event.layer for event in events if isinstance(event, LayerDone)]
    assert len(done) == len(set(done)) == distinct(8)
    assert {type(event) for event in events} == {LayerStarted, LayerDone}
    assert_clean(LayerStore(tmp_path / "store"), distinct(8))


def docker_archive(root: Path) -> str:
    return f"docker-archive:{tar_of(docker_files(LAYERS), root.with_suffix('.tar'))}:a:1"


def folder_of_a_docker_archive(root: Path) -> Path:
    return write(root, docker_files(LAYERS))


def compressed_archive(root: Path) -> Path:
    path = packed(layout_of(root, LAYERS), root.with_suffix(".tar"))
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def skopeo(root: Path) -> str:
    store = Store()
    return f"dir:{store.skopeo(root, store.image(LAYERS))}"


@pytest.mark.parametrize("form", [docker_archive, folder_of_a_docker_archive, compressed_archive, skopeo])
def test_every_form_of_a_source_gives_the_same_layers(tmp_path: Path, form: Callable[[Path], str | Path]) -> None:
    results = run([form(tmp_path / "source")], tmp_path / "store", threads())
    assert results[0].error is None
    assert results[0].image is not None
    assert [layer.chain_id for layer in results[0].image.layers] == chain_ids(LAYERS)
    assert_clean(LayerStore(tmp_path / "store"), 3)


def test_results_are_those_of_import_image(tmp_path: Path) -> None:
    source = images(tmp_path)[0]
    one = import_image(source, tmp_path / "one", sync=False)
    many = run([str(source)], tmp_path / "many", threads())[0].image
    assert many is not None
    assert many.digest == one.digest
    assert many.config_digest == one.config_digest
    assert many.platform == one.platform
    assert many.top == tmp_path / "many" / one.top.name
    for mine, theirs in zip(many.layers, one.layers, strict=True):
        assert (mine.chain_id, mine.diff_id, mine.digest) == (theirs.chain_id, theirs.diff_id, theirs.digest)
        assert (mine.bytes, mine.reused, mine.path.name) == (theirs.bytes, False, theirs.path.name)
        assert {file.name for file in mine.path.rglob("*")} == {file.name for file in theirs.path.rglob("*")}
        record = "cimlayer.json"
        assert (mine.path / record).read_bytes() == (theirs.path / record).read_bytes()


def test_layers_that_are_there_are_used_again_by_both(tmp_path: Path) -> None:
    sources = images(tmp_path / "sources", 2)
    assert not any(layer.reused for layer in import_image(sources[0], tmp_path / "store", sync=False).layers)
    events: list[Event] = []
    results = run(sources, tmp_path / "store", threads(), progress=events.append)
    assert [[layer.reused for layer in result.image.layers] for result in results if result.image] == [
        [True] * 3,
        [True, True, False],
    ]
    assert sum(isinstance(event, LayerReused) for event in events) == 3
    assert all(layer.reused for layer in import_image(sources[1], tmp_path / "store").layers)


def test_options_that_change_bytes_are_other_layers(tmp_path: Path) -> None:
    source = images(tmp_path / "sources", 1)
    plain_ = run(source, tmp_path / "store", threads())[0].image
    kept = run(source, tmp_path / "store", threads(), scratch_disks=False)[0].image
    assert plain_ is not None
    assert kept is not None
    assert {layer.path for layer in plain_.layers}.isdisjoint(layer.path for layer in kept.layers)
    assert kept.layers[0].path.name == LayerStore.key(str(kept.layers[0].chain_id), scratch_disks=False)
    assert (plain_.layers[0].path / "blank.vhdx").exists()
    assert not (kept.layers[0].path / "blank.vhdx").exists()
    assert_clean(LayerStore(tmp_path / "store"), 6)


def test_a_layer_of_import_image_with_other_options_is_not_taken_for_one_of_the_store(tmp_path: Path) -> None:
    source = images(tmp_path / "sources", 1)[0]
    import_image(source, tmp_path / "store", sync=False, scratch_disks=False)
    error = run([source], tmp_path / "store", threads())[0].error
    assert isinstance(error, FileExistsError)


def test_reproducible_layers_are_the_same_whoever_makes_them(tmp_path: Path) -> None:
    sources = images(tmp_path / "sources", 2)
    for name in ("a", "b"):
        run(sources if name == "a" else reversed(sources), tmp_path / name, threads(), reproducible=True)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


# ---- what fails, fails alone ----


def test_a_failed_image_fails_alone(tmp_path: Path) -> None:
    good = images(tmp_path / "good")
    bad = layout_of(tmp_path / "bad", [BASE, plain(b"this is no tar" * 100)])
    absent = images(tmp_path / "absent", 1)[0]
    (absent / "blobs" / TOPS[0].digest.replace(":", "/")).unlink()
    sources = [tmp_path / "missing", bad, *good, "nonsense:x", absent, "-"]
    results = run(sources, tmp_path / "store", threads())
    assert [type(result.error) for result in results] == [
        FileNotFoundError,
        FormatError,
        *[type(None)] * 4,
        FileNotFoundError,
        FileNotFoundError,
        ValueError,
    ]
    assert [result.source for result in results] == sources
    assert_clean(LayerStore(tmp_path / "store"), 6)


@pytest.mark.parametrize("number", range(2))
def test_a_shared_layer_that_is_damaged_in_one_source_is_taken_from_another(tmp_path: Path, number: int) -> None:
    sources = images(tmp_path)
    for source in sources[:2]:
        spoil(source, [BASE, CHILD][number])
    results = run(sources, tmp_path / "store", threads(), workers=1)
    failed = [result.number for result in results if result.error is not None]
    assert set(failed) <= {0, 1}
    assert failed  # the first one that was tried
    assert [type(results[at].error) for at in failed] == [DigestMismatchError] * len(failed)
    assert_clean(LayerStore(tmp_path / "store"), 6 - len(failed))


def test_a_blob_that_is_malformed_is_read_once_for_all_images(tmp_path: Path) -> None:
    cut = Layer(CHILD.tar, gzip.compress(CHILD.tar)[:-20], CHILD.media_type)
    sources = [layout_of(tmp_path / str(number), [BASE, cut, TOPS[number]]) for number in range(4)]
    events: list[Event] = []
    results = run(sources, tmp_path / "store", threads(), progress=events.append)
    assert all("cut" in str(result.error) for result in results)
    assert sum(isinstance(event, LayerStarted) for event in events) == 2
    assert_clean(LayerStore(tmp_path / "store"), 1)


def test_bad_input_is_not_tried_again_and_what_is_transient_is(tmp_path: Path) -> None:
    source = images(tmp_path / "sources", 1)[0]
    events: list[Event] = []
    wrong = failing(source, tmp_path / "wrong", errno.ENOSPC)
    assert run([wrong], tmp_path / "a", threads(), progress=events.append)[0].error.errno == errno.ENOSPC  # type: ignore[union-attr]
    assert sum(isinstance(event, LayerStarted) for event in events) == 1
    again = failing(source, tmp_path / "again", errno.ETIMEDOUT)
    assert run([again], tmp_path / "b", threads())[0].error is None
    assert_clean(LayerStore(tmp_path / "b"), 3)


def test_an_object_that_no_worker_can_get_is_its_images_error(tmp_path: Path) -> None:
    source = images(tmp_path / "sources", 1)[0]
    results = run([lambda cancel: None, source], tmp_path / "store")
    assert "pickle" in str(results[0].error).lower()
    assert results[1].error is None


# ---- workers that die ----


@needs_kill
def test_the_layer_of_a_worker_that_died_is_taken_up_again(tmp_path: Path) -> None:
    sources = images(tmp_path / "sources")
    mark = tmp_path / "killed"
    events: list[Event] = []
    results = run([killing(sources[0], mark), *sources[1:]], tmp_path / "store", progress=events.append, workers=1)
    assert mark.exists()
    assert [result.error for result in results] == [None] * 4
    assert sum(isinstance(event, LayerWarning) for event in events) == 1
    assert_clean(LayerStore(tmp_path / "store"), 6)


@needs_kill
def test_a_layer_that_kills_every_worker_fails_its_images_and_no_other(tmp_path: Path) -> None:
    other = layout_of(tmp_path / "other", [gzipped(base_tar(other=b"other"))])
    results = run([killing(images(tmp_path / "sources", 1)[0], None), other], tmp_path / "store")
    assert isinstance(results[0].error, BrokenProcessPool)
    assert results[1].error is None
    assert [each.key for each in LayerStore(tmp_path / "store").layers()] == [results[1].image.top.name]  # type: ignore[union-attr]
    LayerStore(tmp_path / "store").collect_garbage()
    assert_clean(LayerStore(tmp_path / "store"), 1)


@needs_kill
def test_a_pool_of_the_caller_that_breaks_fails_what_is_left_and_another_goes_on(tmp_path: Path) -> None:
    sources = images(tmp_path / "sources")
    with processes() as pool:
        results = run([killing(sources[0], tmp_path / "killed"), *sources[1:]], tmp_path / "store", pool)
    assert all(isinstance(result.error, BrokenProcessPool) for result in results if result.error is not None)
    assert any(result.error is not None for result in results)
    assert [result.error for result in run(sources, tmp_path / "store", threads())] == [None] * 4
    LayerStore(tmp_path / "store").collect_garbage()  # the claim of a worker that was killed once its layer was there
    assert_clean(LayerStore(tmp_path / "store"), 6)


# ---- cancelling ----


def endless_image(root: Path, mark: Path) -> Any:
    """It shares no layer with others, which would wait for it."""
    return endless(layout_of(root, [gzipped(base_tar(e=os.urandom(50_000)))]), mark)


@pytest.mark.parametrize("make", [threads, lambda: None])
def test_cancelling_stops_what_runs_and_leaves_nothing_half_made(
    tmp_path: Path, make: Callable[[], Executor | None]
) -> None:
    mark, cancel = tmp_path / "begun", CancellationToken()
    sources = [*images(tmp_path / "sources", 1), endless_image(tmp_path / "endless", mark)]
    over = threading.Event()

    def cancel_once_it_is_alone() -> None:
        """Not where results are taken: nothing is begun while nobody asks for the next one."""
        over.wait(60)
        wait_until(mark.exists)
        cancel.cancel()

    with ThreadPoolExecutor(1) as other, pytest.raises(OperationCancelledError):
        cancelling = other.submit(cancel_once_it_is_alone)
        for result in import_images(sources, tmp_path / "store", make(), workers=2, sync=False, cancel=cancel):
            assert result.number == 0
            over.set()
    cancelling.result()
    assert_clean(LayerStore(tmp_path / "store"), 3)


def test_an_iterator_that_is_closed_stops_its_workers(tmp_path: Path) -> None:
    sources = [*images(tmp_path / "sources", 1), endless_image(tmp_path / "endless", tmp_path / "begun")]
    with closing(import_images(sources, tmp_path / "store", threads(), workers=2, sync=False)) as results:
        next(results)
    assert_clean(LayerStore(tmp_path / "store"), 3)


PROGRAM = """
import sys
from pathlib import Path
from cimlayer import import_images
from support.fleets import endless
if __name__ == "__main__":
    sources, store, mark = sys.argv[1:]
    list(import_images([endless(Path(sources), Path(mark))], store, workers=1, sync=False))
"""


@needs_kill
def test_workers_end_with_the_process_that_was_killed_and_the_next_one_takes_up_the_layer(tmp_path: Path) -> None:
    source = images(tmp_path / "sources", 1)[0]
    program, mark = tmp_path / "program.py", tmp_path / "begun"
    program.write_text(PROGRAM, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen([sys.executable, program, source, tmp_path / "store", mark], env=environment) as process:
        wait_until(mark.exists, process)
        process.send_signal(signal.SIGKILL)
    assert [result.error for result in run([source], tmp_path / "store", threads())] == [None]
    store = LayerStore(tmp_path / "store")
    (run_,) = store.layout.runs.iterdir()
    os.utime(run_, (0, 0))  # a day later
    store.collect_garbage()
    assert_clean(store, 3)


# ---- executors ----


def test_any_executor_will_do(tmp_path: Path) -> None:
    results = run(iter(images(tmp_path / "sources")), tmp_path / "store", Immediate(), workers=None)
    assert [result.error for result in results] == [None] * 4
    assert_clean(LayerStore(tmp_path / "store"), 6)


def test_an_executor_that_was_shut_down_is_every_images_error(tmp_path: Path) -> None:
    executor = threads()
    executor.shutdown()
    results = run(images(tmp_path / "sources"), tmp_path / "store", executor)
    assert [type(result.error) for result in results] == [RuntimeError] * 4


@pytest.mark.parametrize(("options", "error"), [({"workers": 0}, ValueError), ({"platform": "//"}, ValueError)])
def test_wrong_arguments_are_refused_at_once(tmp_path: Path, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        import_images([], tmp_path / "store", **options)
    with pytest.raises(TypeError):
        import_images("a", tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_two_imports_of_the_same_images_at_once_make_each_layer_once(tmp_path: Path) -> None:
    sources = family(tmp_path / "sources", 8)
    events: list[Event] = []
    both: list[Iterator[ImageResult]] = [
        import_images(order, tmp_path / "store", workers=1, sync=False, progress=events.append)
        for order in (sources, sources[::-1])
    ]
    with ThreadPoolExecutor(2) as pool:
        results = [result for some in pool.map(list, both) for result in some]
    assert [result.error for result in results] == [None] * 16
    done = [event.layer for event in events if isinstance(event, LayerDone)]
    assert len(done) == len(set(done)) == distinct(8)
    assert_clean(LayerStore(tmp_path / "store"), distinct(8))
