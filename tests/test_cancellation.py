"""Each long operation, run in a thread and cancelled from another one while it is under way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import cimlayer
from cimlayer import CancellationToken, ImageReader, OperationCancelledError
from support import ROOT
from support.images import make_image
from test_faults import descriptors

BASE, CHILD = (ROOT / "examples" / f"sample-{name}.tar" for name in ("layer", "child"))
WAIT = 60  # seconds, after which a test has failed


class Watched(CancellationToken):
    """Stops the operation when it asks for the second time whether it is cancelled, until somebody says so."""

    __slots__ = ("asked", "reached", "told")

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.reached, self.told = threading.Event(), threading.Event()

    @property
    def cancelled(self) -> bool:
        self.asked += 1
        if self.asked == 2:
            self.reached.set()
            assert self.told.wait(WAIT)
        return self._cancelled

    def cancel(self) -> None:
        super().cancel()
        self.told.set()


Operation = Callable[[Path, CancellationToken], object]


def create(root: Path, cancel: CancellationToken) -> None:
    cimlayer.create_image(root / "new.cim", root / "folder", sync=False, cancel=cancel)


def import_layer(root: Path, cancel: CancellationToken) -> None:
    cimlayer.import_layer(CHILD, root / "layers" / "2", [root / "layers" / "1"], sync=False, cancel=cancel)


def import_image(root: Path, cancel: CancellationToken) -> None:
    cimlayer.import_image(root / "image.tar", root / "store", sync=False, cancel=cancel)


def list_images(root: Path, cancel: CancellationToken) -> None:
    cimlayer.list_images(root / "image.tar", cancel=cancel)


def export_layer(root: Path, cancel: CancellationToken) -> None:
    cimlayer.export_layer(root / "layers" / "1", None, root / "exported.tar", cancel=cancel)


def export_image(root: Path, cancel: CancellationToken) -> None:
    cimlayer.export_image(root / "layers" / "1", f"oci-archive:{root / 'exported.tar'}", cancel=cancel)


def extract(root: Path, cancel: CancellationToken) -> None:
    with ImageReader(root / "layers" / "1") as image:
        cimlayer.extract(image, "", root / "extracted", cancel=cancel)


def diff(root: Path, cancel: CancellationToken) -> None:
    with ImageReader(root / "a" / "a.cim") as older, ImageReader(root / "b" / "b.cim") as newer:
        list(cimlayer.diff_images(older, newer, cancel=cancel))


def verify(root: Path, cancel: CancellationToken) -> None:
    with ImageReader(root / "a" / "a.cim") as image:
        image.verify(cancel=cancel)


MADE = ("new.cim", "layers/2", "layers/cim-layers/2.cim", "exported.tar")  # by none of them in part
OPERATIONS = (create, import_layer, import_image, list_images, export_layer, export_image, extract, diff, verify)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    (root / "layers").mkdir()
    cimlayer.import_layer(BASE, root / "layers" / "1", sync=False)
    cimlayer.export_image(root / "layers" / "1", f"oci-archive:{root / 'image.tar'}", os_version="10.0.20348.1")
    (root / "folder").mkdir()
    for number in range(5):
        (root / "folder" / f"f{number}").write_bytes(bytes(1 << 20))
    for name, size in (("a", 17 << 20), ("b", 17 << 20)):
        (root / name).mkdir()
        make_image(root / name, f"{name}.cim", {"large": name.encode() + bytes(range(256)) * (size // 256)})
    return root


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_operation_is_cancelled_from_another_thread(sources: Path, operation: Operation) -> None:
    token, raised = Watched(), list[BaseException]()

    def work() -> None:
        try:
            operation(sources, token)
        except BaseException as error:
            raised.append(error)
        finally:
            token.reached.set()  # the operation may have ended without a second question

    before = descriptors()
    thread = threading.Thread(target=work)
    thread.start()
    assert token.reached.wait(WAIT)
    token.cancel()
    thread.join(WAIT)
    assert [type(error) for error in raised] == [OperationCancelledError]
    assert descriptors() == before
    for name in MADE:
        assert not (sources / name).exists()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_operation_that_was_cancelled_before_does_nothing(sources: Path, operation: Operation) -> None:
    token = CancellationToken()
    token.cancel()
    with pytest.raises(OperationCancelledError):
        operation(sources, token)
    for name in MADE:
        assert not (sources / name).exists()


def test_a_task_of_asyncio_cancels_what_runs_in_its_thread(sources: Path, tmp_path: Path) -> None:
    """As docs/api.md has it."""
    token = Watched()

    async def imported() -> None:
        try:
            await asyncio.to_thread(import_layer, sources, token)
        except asyncio.CancelledError:
            token.cancel()
            raise

    async def main() -> None:
        task = asyncio.create_task(imported())
        await asyncio.to_thread(token.reached.wait, WAIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())  # which waits for the thread
    assert not (sources / "layers" / "2").exists()


def test_reading_side_by_side_with_asyncio(sources: Path) -> None:
    async def main() -> list[bytes]:
        with ImageReader(sources / "layers" / "1") as image:
            paths = [path for path, entry in image.walk() if not entry.is_directory]
            return await asyncio.gather(*(asyncio.to_thread(image.read, path) for path in paths))

    assert len(asyncio.run(main())) > 5
