"""Several writers, readers and interpreters at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cimfs_ext.reader import ImageReader
from cimlayer import (
    CancellationToken,
    CimLayerWriter,
    FileBasicInfo,
    ImageWriter,
    destroy_cim_layer,
    import_layer,
    is_cim_layer,
)
from cimlayer.errors import ImageBusyError, OperationCancelledError
from cimlayer.host.filelocks import lock_holder
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.garbage import collect_garbage
from support import ROOT
from support.images import add, assert_sound, read_files, writer
from support.platforms import WINDOWS, not_under_wine, same_everywhere

BASE_TAR, CHILD_TAR = ROOT / "examples" / "sample-layer.tar", ROOT / "examples" / "sample-child.tar"
COMMITS = int(os.environ.get("CIMLAYER_CONCURRENT_COMMITS", "60"))

HOLD = """
import sys
from cimfs_ext.image import ImageWriter
with ImageWriter(sys.argv[1], None, "child.cim"):
    print("held", flush=True)
    sys.stdin.readline()
"""

EXTEND = """
import sys
from cimfs_ext.image import ImageWriter
for n in range(int(sys.argv[2])):
    with ImageWriter(sys.argv[1], "a.cim", sync=False) as image:
        for name in ("first", "second"):
            data = b"%d " % n * 3000
            image.create_file(name, size=len(data))
            image.write(data)
        image.delete_path(f"unique {n}")
        image.create_file(f"unique {n + 1}")
        image.commit()
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    layer = tmp_path / "base"
    import_layer(BASE_TAR, layer, sync=False)
    return layer


def hold(directory: Path) -> subprocess.Popen[bytes]:
    """Another process that writes the image of the layer "child", until its standard input ends."""
    words = [sys.executable, "-c", HOLD, str(directory)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().rstrip() == b"held"
    return process


# ---- the lock ----


def test_a_second_import_is_refused_at_once_and_told_who_is_at_work(base: Path) -> None:
    images = base.parent / "cim-layers"
    process = hold(images)
    try:
        draft = next(images.glob("image_*"))
        holder = lock_holder(draft)
        assert holder == process.pid or (holder is None and not WINDOWS)
        by_whom = rf"by process {process.pid}\b" if holder else "being written"
        with pytest.raises(ImageBusyError, match=by_whom) as caught:
            import_layer(CHILD_TAR, base.parent / "child", [base])
        assert caught.value.hresult == 0x80070020
        assert not (base.parent / "child").exists()
    finally:
        process.communicate(b"\n")
    assert not list(images.glob("image_*"))
    import_layer(CHILD_TAR, base.parent / "child", [base], sync=False)


def test_a_second_import_waits_as_long_as_it_may(base: Path) -> None:
    process = hold(base.parent / "cim-layers")
    try:
        began = time.monotonic()
        with pytest.raises(ImageBusyError):
            import_layer(CHILD_TAR, base.parent / "child", [base], lock_timeout=0.3)
        assert time.monotonic() - began >= 0.3
    finally:
        process.communicate(b"\n")


def test_imports_of_different_layers_work_side_by_side(tmp_path: Path) -> None:
    layers = [tmp_path / name for name in "abc"]
    with ThreadPoolExecutor(3) as pool:
        for job in [pool.submit(import_layer, BASE_TAR, at, sync=False) for at in layers]:
            assert job.result().bytes > 0
    trees = [read_files(tmp_path / "cim-layers" / f"{layer.name}.cim") for layer in layers]
    assert trees[0] == trees[1] == trees[2]


def test_writers_of_different_images_are_open_at_once(base: Path) -> None:
    names = ("one", "two", "three")
    writers = [CimLayerWriter(base.parent / name, [base], sync=False) for name in names]
    for layer in writers:
        layer.add(r"Files\new.txt", FileBasicInfo.at(0), 0)
    assert collect_garbage(base.parent / "cim-layers", delete=True) == []
    for layer in writers:
        layer.close()
    for name in names:
        assert_sound(base.parent / "cim-layers" / f"{name}.cim")


def test_an_import_that_waits_goes_on_when_the_other_one_has_failed(base: Path) -> None:
    child = base.parent / "child"
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyError), CimLayerWriter(child, [base], sync=False):
            job = pool.submit(import_layer, CHILD_TAR, child, [base], sync=False, lock_timeout=60)
            raise KeyError
        job.result()
    assert_sound(base.parent / "cim-layers" / "child.cim")


def test_of_two_imports_of_one_layer_one_succeeds(base: Path) -> None:
    def attempt(_: int) -> bool:
        try:
            import_layer(CHILD_TAR, base.parent / "child", [base], sync=False)
        except (ImageBusyError, FileExistsError):
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(attempt, range(4))).count(True) == 1
    assert_sound(base.parent / "cim-layers" / "child.cim")


def test_what_a_running_writer_needs_is_neither_destroyed_nor_collected(base: Path) -> None:
    with CimLayerWriter(base.parent / "child", [base], sync=False):
        with pytest.raises(ImageBusyError):
            destroy_cim_layer(base, force=True)
        with pytest.raises(ImageBusyError):
            destroy_cim_layer(base.parent / "child")
        assert collect_garbage(base.parent / "cim-layers", delete=True) == []
    assert_sound(base.parent / "cim-layers" / "child.cim")


def on_waiting(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Call it whenever a writer finds that it has to wait for another one."""
    attempt = CimLayerWriter._open_image

    def observed(self: CimLayerWriter) -> ImageWriter:
        try:
            return attempt(self)
        except ImageBusyError:
            action()
            raise

    monkeypatch.setattr(CimLayerWriter, "_open_image", observed)


def test_a_cancelled_import_does_not_wait_for_the_lock(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = CancellationToken()
    with CimLayerWriter(base.parent / "child", [base], sync=False):
        on_waiting(monkeypatch, cancel.cancel)
        with pytest.raises(OperationCancelledError):
            import_layer(CHILD_TAR, base.parent / "child", [base], lock_timeout=600, cancel=cancel)


def test_a_failed_import_takes_its_files_back_before_the_next_one_begins(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write the same layer directory; the first one is slow to clean up."""
    undo, child = LayerDirectory.undo, base.parent / "child"
    waiting = threading.Thread(target=import_layer, args=(CHILD_TAR, child, [base]), kwargs={"lock_timeout": 60})

    def slow(self: LayerDirectory) -> None:
        if self.root == child and not waiting.ident:
            waiting.start()
            assert waits.wait(60)
        undo(self)

    waits = threading.Event()
    on_waiting(monkeypatch, waits.set)
    monkeypatch.setattr(LayerDirectory, "undo", slow)
    with pytest.raises(KeyError), CimLayerWriter(child, [base], sync=False) as failing:
        failing.add(r"Hives\SYSTEM_Delta", FileBasicInfo.at(0), 0)
        raise KeyError
    waiting.join()
    assert is_cim_layer(child)
    assert child.is_dir()


def test_a_parent_is_not_destroyed_while_it_has_children(base: Path) -> None:
    child = base.parent / "child"
    import_layer(CHILD_TAR, child, [base], sync=False)
    with pytest.raises(OSError, match=r"forked from it: child\.cim"):
        destroy_cim_layer(base)
    assert_sound(base.parent / "cim-layers" / "child.cim")
    destroy_cim_layer(child)
    destroy_cim_layer(base)
    assert not is_cim_layer(base)


# ---- in parallel ----


def test_imports_into_different_directories_run_in_threads(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(import_layer, BASE_TAR, tmp_path / str(n) / "base", sync=False) for n in range(4)]
        assert len({job.result().bytes for job in jobs}) == 1
    for n in range(4):
        assert_sound(tmp_path / str(n) / "cim-layers" / "base.cim")


def test_imports_into_different_directories_run_in_processes(tmp_path: Path) -> None:
    code = "import sys; from cimlayer import import_layer; import_layer(*sys.argv[1:], sync=False)"
    words = [[sys.executable, "-c", code, str(BASE_TAR), str(tmp_path / str(n) / "base")] for n in range(3)]
    for process in [subprocess.Popen(one) for one in words]:
        assert process.wait(60) == 0
    for n in range(3):
        assert_sound(tmp_path / str(n) / "cim-layers" / "base.cim")


@not_under_wine("a file that is open is replaced")
def test_readers_see_the_old_image_or_the_new_and_never_a_mix(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        for name in ("first", "second"):
            add(image, name, b"before")
        add(image, "unique 0")
        image.commit()
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> int:
        count = 0
        while not done.is_set() or count == 0:
            with ImageReader(tmp_path / "a.cim") as image:
                names = [entry.name for entry in image.listdir()]
                first, second = image.read("first"), image.read("second")
                report = image.verify()
                assert first == second == image.read("first")
                assert names == [entry.name for entry in image.listdir()] and len(names) == 3
                if first != b"before":
                    assert names[2] == f"unique {int(first.split()[0]) + 1}"
                assert report.problems == () and report.unjudged == 0
                seen.add(first)
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            subprocess.run([sys.executable, "-c", EXTEND, str(tmp_path), str(COMMITS)], check=True, timeout=300)
        finally:
            done.set()
        for reader in readers:
            assert reader.result() > 0
    assert len(seen) > 1, "no reader has met a commit"


# ---- interpreters ----

MODULES = ("backupstream", "contentid", "image", "importer", "names", "reader", "regf")


def run_in_subinterpreter(code: str) -> None:
    if sys.version_info >= (3, 14):
        from concurrent import interpreters

        interpreters.create().exec(code)
        return
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    low_level = pytest.importorskip(name)
    interpreter = low_level.create()
    try:
        low_level.run_string(interpreter, code)
    finally:
        low_level.destroy(interpreter)


@pytest.mark.parametrize("module", MODULES)
@same_everywhere
def test_a_subinterpreter_can_use_the_package_or_is_told_that_it_cannot(tmp_path: Path, module: str) -> None:
    """In a process of its own: what goes wrong with interpreters goes wrong for the whole process."""
    result = tmp_path / "result"
    inner = f"""
import sys
sys.path[:] = {sys.path!r}
try:
    import cimfs_ext.{module}
    said = "works"
except ImportError as error:
    said = str(error)
open({str(result)!r}, "w").write(said)
"""
    code = f"""
import sys
sys.path[:] = {sys.path!r}
import cimfs_ext.{module}
from test_concurrency import run_in_subinterpreter
run_in_subinterpreter({inner!r})
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False, timeout=60)
    if b"importorskip" in done.stderr or b"Skipped" in done.stderr:
        pytest.skip("no subinterpreters here")
    assert done.returncode == 0, done.stderr.decode()
    said = result.read_text("utf-8")
    assert said == "works" or "interpreter" in said.lower()


FORKING = """
import os, sys
from cimlayer import CimLayerWriter, FileBasicInfo
writer = CimLayerWriter(sys.argv[1], [sys.argv[2]], sync=False)
writer.add("new", FileBasicInfo.at(0), 0)
reading, writing = os.pipe()
child = os.fork()
if not child:
    os.close(reading)
    with writer:
        try:
            writer.add("from the child", FileBasicInfo.at(0), 0)
        except ValueError as error:
            os.write(writing, str(error).encode())
        sys.exit()  # the block, and then everything, is unwound
os.waitpid(child, 0)
os.close(writing)
print(os.read(reading, 100).decode())
writer.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_that_ends_takes_nothing_of_an_import_with_it(base: Path) -> None:
    command = [sys.executable, "-c", FORKING, str(base.parent / "child"), str(base)]
    ended = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=60)
    assert (ended.stdout, ended.stderr) == ("the layer is closed\n", "")
    assert_sound(base.parent / "cim-layers" / "child.cim")


FORKING_AMID_A_FILE = r"""
import os, sys
from cimfs_ext.backupstream import BackupStreamWriter as Stream
from cimlayer import CimLayerWriter, FileBasicInfo
writer = CimLayerWriter(sys.argv[1], [sys.argv[2]], sync=False)
content = bytes(range(250)) * 4
files = {
    r"Files\Windows\System32\config\SYSTEM": Stream.data(content),
    "new": [*Stream.data(content), *Stream.sparse_alternate_stream("map", 4000, [(8, content)])],
}
for name, stream in files.items():
    writer.add(name, FileBasicInfo.at(0), len(content))
    data = b"".join(stream)
    for at in range(0, len(data), 300):
        writer.write(data[at:at + 300])
        if not os.fork():
            try:
                writer.write(data[at + 300:])
            except ValueError as error:
                assert str(error) == "the layer is closed", error
                writer.abandon()
                sys.exit()
        assert os.wait()[1] == 0
writer.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_amid_a_file_neither_writes_to_the_layer_nor_abandons_it(base: Path) -> None:
    command = [sys.executable, "-c", FORKING_AMID_A_FILE, str(base.parent / "child"), str(base)]
    subprocess.run(command, check=True, timeout=60)
    assert_sound(base.parent / "cim-layers" / "child.cim")
    content = bytes(range(250)) * 4
    with ImageReader(base.parent / "cim-layers" / "child.cim") as image:
        assert image.read(r"Files\Windows\System32\config\SYSTEM") == content
        assert image.read("new") == content
        assert image.read("new", "map") == bytes(8) + content + bytes(4000 - 8 - len(content))


FORKING_IN_A_CALLBACK = """
import io, os, sys
from cimlayer import import_layer
from cimlayer.blobs.arrival import PIECE
from support.tars import TarBuilder
def fork(event):
    if not os.fork():
        sys.exit()
    assert os.wait()[1] == 0
tar = TarBuilder()
tar.file("Files/before", bytes(PIECE - 3 * 512 - 2048))
tar.file("Files/Windows/System32/config/SYSTEM", bytes(range(250)) * 40)
import_layer(io.BytesIO(tar.finish()), sys.argv[1], [sys.argv[2]], sync=False, jobs=1, progress=fork)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_amid_an_import_writes_nothing_to_the_layer(base: Path) -> None:
    command = [sys.executable, "-c", FORKING_IN_A_CALLBACK, str(base.parent / "child"), str(base)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(command, env=environment, check=True, timeout=60)
    with ImageReader(base.parent / "cim-layers" / "child.cim") as image:
        assert image.read(r"Files\Windows\System32\config\SYSTEM") == bytes(range(250)) * 40


LOCKING = """
import os, sys
from pathlib import Path
from cimlayer import CimLayerWriter, import_layer
from cimlayer.image.locking import held
root = Path(sys.argv[1])
holders = (
    lambda: CimLayerWriter(root / "child0", [root / "base"]),
    lambda: held(root / "cim-layers" / "base.cim", "busy"),
)
for number, hold in enumerate(holders):
    reading, writing = os.pipe()
    try:
        with hold():
            if not os.fork():
                os.close(writing)
                os.read(reading, 1)  # lives on until the other end is closed
                os._exit(0)
            raise KeyError
    except KeyError:
        pass
    import_layer(sys.argv[2], root / f"child{number}", [root / "base"], sync=False)
    os.close(writing)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_lock_does_not_outlive_its_holder_in_a_forked_process(base: Path) -> None:
    subprocess.run([sys.executable, "-c", LOCKING, str(base.parent), str(CHILD_TAR)], check=True, timeout=60)
    for name in ("child0.cim", "child1.cim"):
        assert_sound(base.parent / "cim-layers" / name)
