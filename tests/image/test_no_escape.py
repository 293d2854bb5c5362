"""Symbolic links in a layer directory, planted before an import or while it runs, lead nothing out of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cimlayer import CimLayerWriter, import_layer
from cimlayer.formats.fileinfo import FileBasicInfo
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.standard import HIVES
from support import ROOT
from support.images import names_in

STANDARD_FILE = HIVES[2].path
BASE_TAR = ROOT / "examples" / "sample-layer.tar"
TRIES = int(os.environ.get("CIMLAYER_RACE_TRIES", "1000"))

pytestmark = pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="symbolic links are not for everybody here")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What no import may touch."""
    directory = tmp_path / "outside"
    (directory / "config").mkdir(parents=True)
    for name in ("SYSTEM", "SYSTEM_BASE", "layout", "file", "blank.vhdx", "config/SYSTEM"):
        (directory / name).write_bytes(b"not yours")
    return directory


def state(directory: Path) -> dict[str, bytes]:
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


PLANTED = ["Files", "Files/Windows", "Files/Windows/System32/config", "Files/Windows/System32/config/SYSTEM",
           "Hives", "Hives/SYSTEM_BASE", "layout", "blank.vhdx", "blank-base.vhdx", "files"]  # fmt: skip


@pytest.mark.parametrize("place", PLANTED)
def test_a_link_that_is_there_before_the_import_is_refused_or_replaced(
    tmp_path: Path, outside: Path, place: str
) -> None:
    before = state(outside)
    link = tmp_path / "layer" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / Path(place).name if (outside / Path(place).name).is_file() else outside)
    with contextlib.suppress(OSError):
        import_layer(BASE_TAR, tmp_path / "layer", sync=False)
    assert state(outside) == before


@contextlib.contextmanager
def swapping(directory: Path, outside: Path) -> Iterator[None]:
    """Meanwhile a thread puts a link to outside in the place of the directory, and the directory back, for ever."""
    stop = threading.Event()
    aside = directory.with_name(directory.name + " aside")

    def swap() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                directory.rename(aside)
                directory.symlink_to(outside)
            time.sleep(0)
            with contextlib.suppress(OSError):
                if directory.is_symlink():
                    directory.unlink()
                    aside.rename(directory)
            if aside.exists() and directory.is_dir() and not directory.is_symlink():
                shutil.rmtree(aside, ignore_errors=True)

    thread = threading.Thread(target=swap, daemon=True)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


def write_new(directory: LayerDirectory) -> None:
    with directory.create(r"a\b\new") as file:
        file.write(b"data")


def write_over(directory: LayerDirectory) -> None:
    directory.write(r"a\b\file", b"data")
    directory.write(r"a\b\file", b"other data")


def link(directory: LayerDirectory) -> None:
    directory.write("source", b"data")
    directory.link("source", r"a\b\linked")


def move(directory: LayerDirectory) -> None:
    directory.write("source", b"data")
    directory.move("source", r"a\b\file")


def make_directory(directory: LayerDirectory) -> None:
    directory.make_directory(r"a\b\c\d")


@pytest.mark.parametrize("action", [write_new, write_over, link, move, make_directory])
def test_a_link_planted_while_the_layer_directory_is_written_leads_nowhere(
    tmp_path: Path, outside: Path, action: Callable[[LayerDirectory], None]
) -> None:
    before, names = state(outside), names_in(outside)
    (tmp_path / "layer" / "a" / "b").mkdir(parents=True)
    tries = succeeded = 0
    with swapping(tmp_path / "layer" / "a" / "b", outside):
        while tries < TRIES or (not 0 < succeeded < tries and tries < 100 * TRIES):
            directory = LayerDirectory(tmp_path / "layer")
            with contextlib.suppress(OSError):
                action(directory)
                succeeded += 1
            directory.undo()
            tries += 1
            if names_in(outside) != names:
                break
    assert names_in(outside) == names
    assert state(outside) == before
    assert 0 < succeeded < tries, "the race was never on"


def test_a_whole_import_beside_such_a_race_stays_inside(tmp_path: Path, outside: Path) -> None:
    before, names = state(outside), names_in(outside)
    config = tmp_path / "layer" / "Files" / "Windows" / "System32" / "config"
    hives = tmp_path / "layer" / "Hives"
    with swapping(config, outside), swapping(hives, outside):
        for _ in range(TRIES):
            config.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                import_layer(BASE_TAR, tmp_path / "layer", sync=False)
                break
    assert names_in(outside) == names
    assert state(outside) == before


def plant_link(place: Path, outside: Path) -> None:
    place.unlink()
    place.symlink_to(outside / "file")


def plant_link_above(place: Path, outside: Path) -> None:
    shutil.rmtree(place.parent)
    (outside / place.name).write_bytes(b"not yours")
    place.parent.symlink_to(outside)


def plant_pipe(place: Path, outside: Path) -> None:
    place.unlink()
    os.mkfifo(place)


@pytest.mark.parametrize("plant", [plant_link, plant_link_above, plant_pipe])
def test_what_is_planted_in_the_place_of_a_standard_file_is_not_read(
    tmp_path: Path, outside: Path, plant: Callable[[Path, Path], None]
) -> None:
    import_layer(BASE_TAR, tmp_path / "base", sync=False)
    before, images = state(outside), names_in(tmp_path / "cim-layers")
    writer = CimLayerWriter(tmp_path / "layer", [tmp_path / "base"], sync=False)
    writer.add(STANDARD_FILE, FileBasicInfo.at(0), 0)
    writer.remove("nothing")  # the file is complete, and waits
    plant(tmp_path.joinpath("layer", *STANDARD_FILE.split("\\")), outside)
    with pytest.raises(OSError, match="inside a layer directory"):
        writer.close()
    assert names_in(tmp_path / "cim-layers") == images
    assert {name: data for name, data in state(outside).items() if name in before} == before


def test_names_that_differ_in_case_are_one(tmp_path: Path) -> None:
    directory = LayerDirectory(tmp_path)
    directory.write(r"One\File", b"1")
    directory.write(r"ONE\fILE", b"2")
    directory.move(r"one\FILE", "moved")
    assert state(tmp_path) == {"moved": b"2"}
    directory.undo()
    assert state(tmp_path) == {}
