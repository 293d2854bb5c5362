"""Many images that share layers, and sources that misbehave in a worker."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from cimlayer import CancellationToken, ImageSource, LayerStore, import_images
from cimlayer.oci.locations import opened_source
from cimlayer.oci.sources import BlobDescriptor
from support.containers import Layer, Store, base_tar, child_tar, gzipped

Opener = Callable[[CancellationToken], contextlib.AbstractContextManager[ImageSource]]


def layout_of(root: Path, layers: Sequence[Layer]) -> Path:
    store = Store()
    return store.layout(root, [store.image(layers)])


def family(root: Path, images: int, *, seed: int = 1, size: int = 2000) -> list[Path]:
    """Layouts of images with three layers, which share one of two bases and one of three layers on it."""
    chance = random.Random(seed)
    bases = [gzipped(base_tar(base=chance.randbytes(size))) for _ in range(2)]
    middles = [gzipped(child_tar(middle=chance.randbytes(size))) for _ in range(3)]
    made = []
    for number in range(images):
        top = gzipped(child_tar(**{f"top{number}": chance.randbytes(size)}))
        made.append(layout_of(root / f"image{number}", [bases[number % 2], middles[number % 3], top]))
    return made


def distinct(images: int) -> int:
    """How many layers such a family has."""
    return len({number % 2 for number in range(images)}) + len({number % 6 for number in range(images)}) + images


def assert_clean(store: LayerStore, layers: int) -> None:
    """All layers are there and whole, and nothing else is."""
    assert store.check(content=True) == []
    assert len(store.layers()) == layers
    garbage = store.collect_garbage(dry_run=True)
    assert (garbage.layers, garbage.remains) == ((), ())
    assert not list(store.layout.runs.iterdir())


def fill(store: LayerStore, sources: Sequence[Path], **options: Any) -> list[list[str]]:
    """Import images in this process; returns the keys of each one's layers, base first."""
    results = sorted(import_images(sources, store, Immediate(), sync=False, **options), key=lambda each: each.number)
    keys = []
    for result in results:
        assert result.image is not None, result.error
        keys.append([layer.path.name for layer in result.image.layers])
    return keys


class Immediate(Executor):
    """Does what it is given at once, in the caller's thread, as no executor of a library does."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


# ---- sources that misbehave; workers open them ----


class Misbehaving:
    """A source of whose blobs the second half comes byte by byte; something is called before each."""

    def __init__(self, source: ImageSource, happen: Callable[[], None]) -> None:
        self._source, self._happen = source, happen
        self.name, self.references, self.document = source.name, source.references, source.document
        self.blob_size = source.blob_size

    def open_blob(self, descriptor: BlobDescriptor, offset: int = 0) -> BinaryIO:
        with self._source.open_blob(descriptor, offset) as file:
            return SecondHalf(file.read(), self._happen)


class SecondHalf(io.BytesIO):
    def __init__(self, data: bytes, happen: Callable[[], None]) -> None:
        super().__init__(data)
        self._half, self._happen = len(data) // 2, happen

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = self._half - self.tell()
        if left <= 0:
            self._happen()
        piece = self.read(min(len(buffer), max(left, 1)))
        buffer[: len(piece)] = piece
        return len(piece)


@contextlib.contextmanager
def _opened(location: str, happen: Callable[[], None], cancel: CancellationToken) -> Iterator[ImageSource]:
    with opened_source(location, None, cancel) as (source, _):
        yield Misbehaving(source, happen)


def _first_time(mark: str) -> bool:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _kill(mark: str | None) -> None:
    if mark is None or _first_time(mark):
        os.kill(os.getpid(), signal.SIGKILL)


def _fail(mark: str, code: int) -> None:
    if _first_time(mark):
        raise OSError(code, os.strerror(code))


def _wait(mark: str) -> None:
    """Longer than any test for all of it, but whoever reads looks in between at whether it is still wanted."""
    Path(mark).touch()
    time.sleep(0.02)


def killing(location: Path, mark: Path | None) -> Opener:
    """The worker dies in the middle of a blob: once, or always."""
    return partial(_opened, str(location), partial(_kill, None if mark is None else str(mark)))


def failing(location: Path, mark: Path, code: int) -> Opener:
    """The middle of a blob cannot be read, once."""
    return partial(_opened, str(location), partial(_fail, str(mark), code))


def endless(location: Path, mark: Path) -> Opener:
    """A blob that takes minutes; the mark is there once it has begun."""
    return partial(_opened, str(location), partial(_wait, str(mark)))
