"""CimFileSystem: fsspec's own tests for implementers, chained URLs, and what an image is besides."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

from cimlayer import FileAttributes, create_image
from cimlayer.image.filesystem import CimFileSystem
from support import ROOT
from support.images import DIRECTORY, add, make_image, writer
from support.layers import reparse_of

FILES = {
    "Files": None,
    "Files\\Windows": None,
    "Files\\Windows\\win.ini": b"one\r\n",
    "Files\\Windows\\notepad.exe": b"MZ" * 100,
    "Files\\a.txt": b"a" * 10,
    "Hives": None,
}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    fsspec.register_implementation("cim", CimFileSystem, clobber=True)
    yield
    MemoryFileSystem.store.clear()


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer directory and its image."""
    (tmp_path / "store" / "cim-layers").mkdir(parents=True)
    (tmp_path / "store" / "2").mkdir()
    make_image(tmp_path / "store" / "cim-layers", "2.cim", FILES)
    return tmp_path / "store" / "2"


@pytest.fixture
def fs(layer: Path) -> Iterator[CimFileSystem]:
    with_image = CimFileSystem(layer)
    yield with_image
    with_image.close()


class TestGet(AbstractFixtures, AbstractGetTests):  # type: ignore[misc]
    """The scenarios of fsspec, from an image that was made of them."""

    @pytest.fixture
    def fs(self, tmp_path: Path) -> Iterator[CimFileSystem]:
        local, folder = LocalFileSystem(auto_mkdir=True), tmp_path / "scenarios"
        scenarios: dict[str, Callable[[Any, Any, Any], object]] = {
            "bulk": self._bulk_operations_scenario_0,
            "glob": self._glob_edge_cases_files,
            "prefix": self._dir_and_file_with_same_name_prefix,
            "hashed": self._10_files_with_hashed_names,
        }
        for name, make in scenarios.items():
            make(local, lambda *parts: "/".join(map(str, parts)), folder / name)
        local.touch(folder / "other" / "src" / "file")
        create_image(tmp_path / "a.cim", folder, sync=False)
        made = CimFileSystem(tmp_path / "a.cim")
        made.mkdir = made.touch = lambda _: None  # one test makes other/src/file itself
        yield made
        made.close()

    @pytest.fixture
    def fs_path(self) -> str:
        return "other"

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self) -> str:
        return "bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self) -> str:
        return "glob/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self) -> str:
        return "prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self) -> str:
        return "hashed/source"


def test_looking(fs: CimFileSystem) -> None:
    assert fs.ls("", detail=False) == ["Files", "Hives"]
    assert fs.ls("cim://files/windows/", detail=False) == ["files/windows/notepad.exe", "files/windows/win.ini"]
    assert fs.ls("Files/a.txt", detail=False) == ["Files/a.txt"]
    assert fs.info("FILES/A.TXT")["size"] == 10
    assert fs.info("")["type"] == "directory"
    assert (fs.isdir("Files"), fs.isfile("Files"), fs.isfile("Files\\a.txt"), fs.exists("x")) == (
        True,
        False,
        True,
        False,
    )
    assert fs.find("") == ["Files/Windows/notepad.exe", "Files/Windows/win.ini", "Files/a.txt"]
    assert fs.glob("Files/**/*.ini") == ["Files/Windows/win.ini"]
    assert fs.du("Files") == 215
    assert [(top, sorted(files)) for top, _, files in fs.walk("Files")] == [
        ("Files", ["a.txt"]),
        ("Files/Windows", ["notepad.exe", "win.ini"]),
    ]
    for call in (fs.ls, fs.info, fs.open, fs.cat_file):
        with pytest.raises(FileNotFoundError):
            call("Files/x")


def test_content(fs: CimFileSystem, tmp_path: Path) -> None:
    with fs.open("Files/Windows/win.ini") as file:
        assert file.read() == b"one\r\n"
    with fs.open("Files/Windows/win.ini", "r") as text:
        assert text.read() == "one\n"
    assert fs.cat("Files/a.txt") == b"a" * 10
    assert fs.cat_file("Files/Windows/win.ini", 1, 3) == b"ne"
    assert fs.head("Files/a.txt", 3) == b"aaa"
    fs.get("Files", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got" / "Windows" / "win.ini").read_bytes() == b"one\r\n"
    with pytest.raises(IsADirectoryError):
        fs.open("Files")


def test_what_an_entry_is(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        add(image, "f", attributes=0x21, last_write_time=133_485_408_000_000_000)
        add(image, "d", attributes=DIRECTORY)
        add(image, "d\\link", attributes=0, reparse_data=reparse_of("f"))
        image.commit()
    fs = CimFileSystem(tmp_path / "a.cim")
    assert fs.info("f")["attributes"] == FileAttributes.READONLY | FileAttributes.ARCHIVE
    assert fs.modified("f").isoformat() == "2024-01-01T00:00:00+00:00"
    assert fs.created("f").year == 1601
    assert (fs.info("d/link")["type"], fs.info("d/link")["islink"]) == ("link", True)


def copied(layer: Path, target: str) -> None:
    """The store as it would be in object storage."""
    memory = fsspec.filesystem("memory")
    for file in (layer.parent / "cim-layers").iterdir():
        memory.pipe(f"{target}/cim-layers/{file.name}", file.read_bytes())


def test_chained_urls(layer: Path) -> None:
    copied(layer, "/bucket/layers")
    image = layer.parent / "cim-layers" / "2.cim"
    for url in (
        f"cim://Files/a.txt::{layer}",
        f"cim://Files/a.txt::file://{image}",
        "cim://Files/a.txt::memory://bucket/layers/2",
        "cim://files/A.TXT::memory://bucket/layers/cim-layers/2.cim",
        "simplecache::cim://Files/a.txt::memory://bucket/layers/2",
    ):
        with fsspec.open(url) as file:
            assert file.read() == b"a" * 10
    fs, path = fsspec.url_to_fs("cim://Files::memory://bucket/layers/2")
    assert (path, fs.ls(path, detail=False)) == ("Files", ["Files/a.txt", "Files/Windows"])
    assert len(fsspec.open_files("cim://Files/**::memory://bucket/layers/2")) == 3
    with pytest.raises(FileNotFoundError):
        fsspec.open(f"cim://Files/x::{layer}").open()
    with pytest.raises(FileNotFoundError):
        fsspec.url_to_fs("cim://::memory://bucket/layers/3")


def test_it_is_read_only(fs: CimFileSystem) -> None:
    calls: list[Callable[[], object]] = [
        lambda: fs.open("new", "wb"),
        lambda: fs.pipe_file("new", b""),
        lambda: fs.touch("new"),
        lambda: fs.mkdir("new"),
        lambda: fs.rm("Files/a.txt"),
        lambda: fs.mv("Files/a.txt", "new"),
        lambda: fs.copy("Files/a.txt", "new"),
    ]
    for call in calls:
        with pytest.raises(OSError, match="read-only"):
            call()


def test_it_can_be_pickled(fs: CimFileSystem) -> None:
    again = pickle.loads(pickle.dumps(fs))
    assert again.cat("Files/a.txt") == b"a" * 10


def test_the_entry_point_is_the_class() -> None:
    found = re.search(r'"fsspec\.specs"\]\ncim = "(.+):(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert found
    assert getattr(import_module(found[1]), found[2]) is CimFileSystem
