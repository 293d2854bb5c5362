"""Every file operation of Python and every call of the system, failing in turn: one error, and nothing is left."""

from __future__ import annotations

import ctypes
import errno
import gzip
import io
import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cimlayer
from cimfs_ext.backupstream import BackupStreamWriter
from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive
from cimlayer import CimLayerWriter, FileBasicInfo
from cimlayer.blobs.arrival import PIECE
from cimlayer.errors import ImageFullError
from cimlayer.image.create import create_image
from cimlayer.image.extract import extract
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.garbage import collect_garbage
from cimlayer.layer.paths import get_cim_path_from_layer
from cimlayer.oci.export_layer import export_layer
from cimlayer.oci.import_image import import_image
from support.containers import Store, base_tar, child_tar, plain
from support.disk import read
from support.faults import Faults, at_every_place, failing, files_end_at
from support.libraries import build_system_calls, run_preloaded
from support.tars import TarBuilder
from support.utilityvms import add_utility_vm

pytest.importorskip("resource", reason="needs POSIX")
MEMORY = Path("/dev/shm")

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")

TIMES = int(os.environ.get("CIMLAYER_FAULTS", "1"))  # an operation in a loop fails so often, and at its end

Work = Callable[[Path], object]


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory in memory, where waiting for the disk takes no time, with a base layer and an image to import."""
    path = Path(tempfile.mkdtemp(prefix="cimlayer-faults-", dir=MEMORY if MEMORY.is_dir() else None))
    cimlayer.import_layer(io.BytesIO(base_tar(a=b"1", b=b"2")), path / "base", sync=False)
    tar = TarBuilder()
    tar.file("Hives/SYSTEM_Delta", Hive.empty(0).to_bytes())
    tar.hardlink("Files/link", "Hives/SYSTEM_Delta")
    tar.opaque("Files")
    (path / "child.tar").write_bytes(tar.finish())
    (path / "child.tar.gz").write_bytes(gzip.compress((path / "child.tar").read_bytes(), 1))
    (path / "plain.tar").write_bytes(child_tar(a=b"1"))
    (path / "folder" / "below").mkdir(parents=True)
    (path / "folder" / "below" / "file").write_bytes(b"1")
    (path / "folder" / "link").symlink_to("below/file")
    store = Store()
    layers = [plain(base_tar(a=b"1")), plain(child_tar(b=b"2"))]
    store.layout(path / "below", [store.image(layers[:1])])
    store.layout(path / "whole", [store.image(layers)])
    import_image(path / "below", path / "layers", sync=False)
    yield path
    shutil.rmtree(path)


def import_base(root: Path) -> None:
    cimlayer.import_layer(io.BytesIO(base_tar(a=b"1")), root / "layer", jobs=1)


def import_child(root: Path) -> None:
    cimlayer.import_layer(root / "child.tar", root / "layer", [root / "base"], jobs=1)


def import_utility_vm(root: Path) -> None:
    tar = TarBuilder()
    add_utility_vm(tar)
    cimlayer.import_layer(io.BytesIO(tar.finish()), root / "layer", [root / "base"], jobs=1)


def write_sparse_stream(root: Path) -> None:
    make = BackupStreamWriter
    with CimLayerWriter(root / "layer", [root / "base"]) as writer:
        writer.add(r"Files\a", FileBasicInfo.at(0), 1)
        for piece in (*make.data(b"1"), *make.sparse_alternate_stream("map", 80, [(8, b"34")])):
            writer.write(piece)


def import_top_of_image(root: Path) -> None:
    import_image(root / "whole", root / "layers", jobs=1)


def import_child_with_threads(root: Path) -> None:
    cimlayer.import_layer(root / "child.tar.gz", root / "layer", [root / "base"], jobs=2)


def import_image_with_threads(root: Path) -> None:
    import_image(root / "whole", root / "layers", jobs=2)


def extract_base(root: Path) -> None:
    with ImageReader(get_cim_path_from_layer(root / "base")) as image:
        extract(image, "", root / "layer", metadata="sidecar", jobs=1)


def export_base(root: Path) -> None:
    export_layer(root / "base", [], root / "layer")


def create_from_folder(root: Path) -> None:
    create_image(root / "cim-layers" / "layer.cim", root / "folder")


def create_from_tar(root: Path) -> None:
    create_image(root / "cim-layers" / "layer.cim", root / "plain.tar", jobs=1)


def destroy(root: Path) -> None:
    cimlayer.destroy_cim_layer(root / "layer")


def leave_garbage(root: Path) -> None:
    for kind in ("region", "objectid"):
        (root / "cim-layers" / f"{kind}_{uuid.uuid4()}_0").write_bytes(b"half")


def collect(root: Path) -> None:
    collect_garbage(root / "cim-layers", delete=True)


def descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists())


def state(root: Path) -> dict[str, tuple[int, int]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files} | {
        str(path.relative_to(root)): (0, 0) for path in root.rglob("*") if path.is_dir()
    }


def outcomes(root: Path, work: Work) -> Iterator[tuple[Faults, OSError | None]]:
    """What becomes of the work when none of its file operations fails, when one does, and of the last try without."""
    with failing(-1) as faults:
        work(root)
    yield faults, None
    for number in [*at_every_place(faults.places, TIMES), -1]:
        before = descriptors()
        refusal: OSError | None = None
        with failing(number) as faults:
            try:
                work(root)
            except OSError as error:
                refusal = error
        assert descriptors() == before, f"{faults.what} ({number}) leaves a file open"
        yield faults, refusal
        del refusal


def carries(error: BaseException | None, cause: BaseException) -> bool:
    while error is not None and error is not cause:
        error = error.__cause__ or error.__context__
    return error is cause


def remove_result(root: Path, before: dict[str, tuple[int, int]]) -> None:
    """Check what was made, and remove it."""
    for path in root.rglob("*.cim"):
        if str(path.relative_to(root)) not in before:
            with ImageReader(path) as image:
                assert not image.verify().problems
            cimlayer.destroy_cim_layer(path.parents[1] / path.stem)
    (root / "layer").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "work",
    [
        import_base, import_child, import_child_with_threads, import_utility_vm, import_top_of_image,
        import_image_with_threads, write_sparse_stream, export_base, create_from_folder, create_from_tar,
    ],
)  # fmt: skip
def test_a_failing_file_operation_is_one_error_and_leaves_nothing(root: Path, work: Work) -> None:
    before = state(root)
    refused = 0
    for faults, error in outcomes(root, work):
        if error is None:
            remove_result(root, before)
        else:
            refused += 1
            assert faults.error is not None
            assert carries(error, faults.error)
        assert state(root) == before, f"{faults.what} ({faults.failing}): {error!r}"
    assert refused >= 5


def test_a_failing_file_operation_of_an_extraction_is_one_error(root: Path) -> None:
    refused = 0
    for faults, error in outcomes(root, extract_base):
        assert error is None or carries(error, faults.error)
        refused += error is not None
        for made in ("layer", "layer.metadata"):
            shutil.rmtree(root / made, ignore_errors=True)
    assert refused > 10


def test_a_failing_file_operation_of_destroying_leaves_all_of_the_layer_or_what_gc_removes(root: Path) -> None:
    others = state(root)
    refused = 0
    write_sparse_stream(root)
    whole = state(root)
    for faults, error in outcomes(root, destroy):
        assert error is None or carries(error, faults.error)
        refused += error is not None
        if cimlayer.is_cim_layer(root / "layer"):
            assert error is not None
            assert state(root) == whole, f"{faults.what} ({faults.failing}): {error!r}"
            destroy(root)
        elif error is not None:
            left = collect_garbage(root / "cim-layers", delete=True)
            # That the image is gone is known once the directory is synced: before that nothing else is removed.
            all_but_the_image = len(whole.keys() - others.keys()) - 1
            expected = (all_but_the_image,) if faults.what == "fsync" else (0, 1)  # or just the mark of the work
            assert len(left) + (root / "layer").exists() in expected
            shutil.rmtree(root / "layer", ignore_errors=True)
        assert state(root) == others, f"{faults.what} ({faults.failing}): {error!r}"
        write_sparse_stream(root)
        whole = state(root)
    assert refused > 5


def test_a_failing_file_operation_of_gc_loses_nothing_and_the_next_one_ends_it(root: Path) -> None:
    others = state(root)
    refused = 0
    leave_garbage(root)
    for faults, error in outcomes(root, collect):
        assert error is None or carries(error, faults.error)
        refused += error is not None
        assert others.items() <= state(root).items(), f"{faults.what} ({faults.failing}): {error!r}"
        collect(root)
        assert state(root) == others
        leave_garbage(root)
    assert refused > 3


def test_no_room_for_a_standard_file_is_said_with_its_name(root: Path) -> None:
    before = state(root)
    tar = TarBuilder()
    tar.file("Files/before", bytes(PIECE - 3 * 512 - 2048))  # the next one comes in a small piece and large ones
    tar.file("Hives/SYSTEM_Delta", os.urandom(3 * PIECE))
    with files_end_at(PIECE + 65536), pytest.raises(OSError, match="large") as caught:
        cimlayer.import_layer(io.BytesIO(tar.finish()), root / "layer", [root / "base"], jobs=1)
    assert caught.value.filename == str(root / "layer" / "Hives" / "SYSTEM_Delta")
    assert state(root) == before


def test_no_room_for_a_file_that_an_import_makes_is_said_with_its_name(root: Path) -> None:
    directory = LayerDirectory(root / "layer")
    with files_end_at(1024), pytest.raises(OSError, match="large") as caught:
        directory.write(r"Hives\SYSTEM_BASE", bytes(5000))
    assert caught.value.filename == str(root / "layer" / "Hives" / "SYSTEM_BASE")


def test_a_writer_without_room_for_a_standard_file_is_abandoned(root: Path) -> None:
    before = state(root)
    writer = CimLayerWriter(root / "layer", [root / "base"])
    writer.add(r"Hives\SYSTEM_DELTA", FileBasicInfo.at(0), 100_000)
    with files_end_at(1024), pytest.raises(OSError, match="large") as caught:
        for piece in BackupStreamWriter.data((os.urandom(5000) for _ in range(20)), 100_000):
            writer.write(piece)
    assert caught.value.filename == str(root / "layer" / "Hives" / "SYSTEM_DELTA")
    assert writer.image.closed
    assert state(root) == before


@pytest.mark.parametrize("size", [1 << 17, 1 << 22], ids=["while it is written", "before it is written"])
def test_no_room_for_a_file_of_the_image_is_said_as_such(root: Path, size: int) -> None:
    before = state(root)
    tar = child_tar(**{f"{number}": os.urandom(size) for number in range(3)})
    with files_end_at(1 << 16), pytest.raises(ImageFullError, match="the disk is full") as caught:
        cimlayer.import_layer(io.BytesIO(tar), root / "layer", [root / "base"], jobs=1)
    assert caught.value.errno == errno.ENOSPC
    assert state(root) == before


# ---- calls of the system, in C too ----

FAILING = """
import sys, test_faults
from pathlib import Path
test_faults.fail_every_call(Path(sys.argv[2]), getattr(test_faults, sys.argv[1]))
"""
RELUCTANT = "import sys, test_faults; test_faults.do_everything(test_faults.Path(sys.argv[1]))"


@pytest.fixture(scope="module")
def system_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_system_calls(tmp_path_factory.mktemp("calls") / "system_calls.so")


def fail_every_call(root: Path, work: Work) -> None:
    """In a process with tests/c/system_calls.c: each call fails once."""
    system = ctypes.CDLL(None)
    before = state(root)
    refused = 0
    for number in itertools.count():
        files = descriptors()
        error: OSError | None = None
        system.fail_call(number)
        try:
            work(root)
        except OSError as caught:
            error = caught
        made = system.calls_made()
        system.fail_call(-1)
        if error is None:
            remove_result(root, before)
        else:
            refused += 1
            cause = error.__cause__ or error
            assert isinstance(cause, OSError) and cause.errno in (errno.EIO, errno.ENOSPC), (number, error)
            del cause
        del error
        assert descriptors() == files, f"call {number} leaves a file open"
        assert state(root) == before, f"call {number}"
        if number >= made:
            break
    assert refused > 10


@pytest.mark.parametrize("work", [import_child, import_child_with_threads, import_top_of_image, create_from_folder])
def test_a_failing_call_of_the_system_is_one_error_and_leaves_nothing(
    root: Path, system_calls: Path, work: Work
) -> None:
    run_preloaded(system_calls, root, FAILING, work.__name__, str(root))


def do_everything(root: Path) -> None:
    """The same bytes wherever it is done."""
    base, child, tree = root / "layers" / "base", root / "layers" / "child", root / "tree"
    data = {"large": bytes(range(256)) * 9000, "small": b"1"}
    cimlayer.import_layer(io.BytesIO(base_tar(**data)), base, reproducible=True)
    (root / "child.tar.gz").write_bytes(gzip.compress(child_tar(small=b"2", new=data["large"][1:]), 1, mtime=0))
    cimlayer.import_layer(root / "child.tar.gz", child, [base], reproducible=True)
    with ImageReader(get_cim_path_from_layer(child)) as image:
        assert not image.verify().problems
        extract(image, "", tree, metadata="sidecar")
    export_layer(child, [base], root / "export.tar")
    create_image(root / "layers" / "plain.cim", tree, reproducible=True)
    cimlayer.import_layer(io.BytesIO(base_tar(**data)), root / "layers" / "gone")
    cimlayer.destroy_cim_layer(root / "layers" / "gone")


def test_short_and_interrupted_reads_and_writes_change_nothing(tmp_path: Path, system_calls: Path) -> None:
    usual, reluctant = tmp_path / "usual", tmp_path / "reluctant"
    usual.mkdir()
    reluctant.mkdir()
    do_everything(usual)
    run_preloaded(system_calls, reluctant, RELUCTANT, str(reluctant), CALLS_RELUCTANT="1")
    assert read(reluctant) == read(usual)
