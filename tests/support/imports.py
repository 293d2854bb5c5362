"""What the tests of Layer tars imported, read by an independent reader share."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import FormatError
from support import layers
from support.layers import Model, differences, image_of, snapshot
from support.tars import TarBuilder, windows_pax

MANAGED = ("Hives", "layout", "UtilityVM")


OWNED = bytes.fromhex("01000480140000000000000000000000000000000102000000000005200000002002 0000".replace(" ", ""))


def base_tar() -> bytes:
    tar = TarBuilder()
    tar.directory("Files", pax=windows_pax(0x10, sd=OWNED, creation=layers.TIME))
    layers.add_base_hives(tar)
    for directory in ("a", "b", "b/deep", "c"):
        tar.directory(f"Files/{directory}", mtime=1000)
        for n in range(6):
            tar.file(f"Files/{directory}/f{n}", f"base {directory} {n}".encode() * (n + 1), mtime=2000 + n)
    tar.hardlink("Files/c/link", "Files/a/f1")
    tar.file("Files/b/streamed", b"s", pax=windows_pax(0x21, eas={"ONE": b"1", "TWO": bytes(300)}))
    tar.stream("Files/b/streamed", "zone:$DATA", b"zone")
    tar.symlink("Files/b/symlink", "../a/f0")
    return tar.finish()


@pytest.fixture(scope="module")
def imported_base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    root = tmp_path_factory.mktemp("base")
    model = Model()
    size = cimlayer.import_layer(io.BytesIO(base_tar()), root / "base", sync=False, reproducible=True).bytes
    assert size == model.apply(base_tar())
    assert differences(model, image_of(root / "base"), MANAGED) == []
    return root, model


@pytest.fixture
def root(imported_base: tuple[Path, Model], tmp_path: Path) -> Path:
    """A directory of layers with the base layer, the test's own."""
    shutil.copytree(imported_base[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def model(imported_base: tuple[Path, Model]) -> Model:
    """The base layer as the model has it."""
    fresh = Model()
    fresh.apply(base_tar())
    return fresh


def add(root: Path, tar: TarBuilder | bytes, name: str = "child", parents: tuple[str, ...] = ("base",)) -> int:
    data = tar if isinstance(tar, bytes) else tar.finish()
    deep = cimlayer.Limits(path_depth=1 << 15)  # as names have it: limits are test_limits.py's
    above = [root / parent for parent in parents]
    return cimlayer.import_layer(io.BytesIO(data), root / name, above, sync=False, reproducible=True, limits=deep).bytes


def fails(root: Path, tar: TarBuilder | bytes, reason: str, **where: object) -> FormatError:
    """An import fails for that reason, names the entry and its offset, and leaves nothing."""
    before = snapshot(root)
    with pytest.raises(FormatError, match=reason) as caught:
        add(root, tar)
    assert snapshot(root) == before
    for name, value in where.items():
        assert getattr(caught.value, name) == value
    return caught.value


def described(name: str) -> bytes:
    tar = TarBuilder()
    tar.file(name, pax={"MSWINDOWS.sd": "D:"})
    return tar.finish()
