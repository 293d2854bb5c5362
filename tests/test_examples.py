"""The programs in examples/ that use the API, each ten lines long, as a scanner's author runs them."""

from __future__ import annotations

import builtins
import hashlib
import io
import runpy
import signal
import sys
import zipfile
from pathlib import Path

import pytest

import cimlayer
from cimfs_ext.regf import Hive
from support import ROOT
from support.images import TIME, add, make_image, writer

PROGRAMS = (
    "hash_every_file",
    "glob_over_a_chain",
    "registry_value",
    "zip_in_a_layer",
    "import_with_progress",
)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer on a base."""
    hive = Hive.empty(0)
    hive.set_value(r"Microsoft\Windows NT\CurrentVersion", "ProductName", 1, "Windows Server".encode("utf-16-le"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("inside.txt", "text")
    for name in ("cim-layers", "1", "2"):
        (tmp_path / name).mkdir()
    base = {"Files": None, "Files\\a.dll": b"a", "Hives": None, "Hives\\SOFTWARE_BASE": hive.to_bytes()}
    make_image(tmp_path / "cim-layers", "1.cim", base)
    with writer(tmp_path / "cim-layers", "1.cim", "2.cim") as image:
        add(image, "Files\\app", attributes=0x10)
        add(image, "Files\\app\\B.DLL", b"bb", last_write_time=TIME)
        add(image, "Files\\app\\a.zip", archive.getvalue())
        image.commit()
    return tmp_path / "2"


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    runpy.run_module(f"examples.{name}", run_name="__main__")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_hash_every_file(layer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "hash_every_file", layer)
    found = dict(reversed(line.split("  ")) for line in lines(capsys))
    assert found.keys() == {"Files/a.dll", "Files/app/B.DLL", "Files/app/a.zip"}
    assert found["Files/app/B.DLL"] == hashlib.sha256(b"bb").hexdigest()


def test_glob_over_a_chain(layer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "glob_over_a_chain", layer, "Files/**/*.dll")
    assert [line.split()[:3] for line in lines(capsys)] == [
        ["2", "Files/a.dll", "1"],
        ["2", "Files/app/B.DLL", "2"],
        ["1", "Files/a.dll", "1"],
    ]


def test_registry_value(layer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "registry_value", layer, "SOFTWARE", r"Microsoft\Windows NT\CurrentVersion", "productname")
    assert lines(capsys) == ["Windows Server"]
    for missing in (("SYSTEM", "", "x"), ("SOFTWARE", "x", "x"), ("SOFTWARE", "Microsoft", "x")):
        with pytest.raises(SystemExit, match="not there"):
            run(monkeypatch, "registry_value", layer, *missing)


def test_zip_in_a_layer(layer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "zip_in_a_layer", layer, "Files/app/A.ZIP")
    assert lines(capsys) == ["4 inside.txt"]


def test_import_with_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, store = tmp_path / "image.tar", tmp_path / "store"
    cimlayer.import_layer(ROOT / "examples" / "sample-layer.tar", tmp_path / "1", sync=False)
    cimlayer.export_image(tmp_path / "1", f"oci-archive:{source}", os_version="10.0.20348.1")
    printed: list[object] = []
    handler = signal.getsignal(signal.SIGINT)

    def interrupted(*objects: object) -> None:
        printed.extend(objects)
        signal.raise_signal(signal.SIGINT)

    try:
        monkeypatch.setattr(builtins, "print", interrupted)
        with pytest.raises(SystemExit, match="cancelled"):
            run(monkeypatch, "import_with_progress", source, store)
        assert isinstance(printed[0], cimlayer.LayerStarted)
        monkeypatch.setattr(builtins, "print", lambda *objects: printed.extend(objects))
        run(monkeypatch, "import_with_progress", source, store / "cim-layers")  # which means the store
    finally:
        signal.signal(signal.SIGINT, handler)
    assert isinstance(printed[-1], Path)
    assert printed[-1].parent == store
    assert cimlayer.is_cim_layer(printed[-1])


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_is_short(name: str) -> None:
    lines = (ROOT / "examples" / f"{name}.py").read_text("utf-8").splitlines()
    code = [line for line in lines if line and not line.startswith(('"""', 'r"""', "import "))]
    assert len(code) <= 10
