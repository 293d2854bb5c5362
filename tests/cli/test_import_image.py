"""`cimlayer import-image`, and how imports show their progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import call, run, succeed, text_of
from support.containers import Store, base_tar, chain_ids, child_tar, gzipped, plain
from support.terminals import shown_on_a_terminal

LAYERS = [gzipped(base_tar(a=os.urandom(3 << 20))), plain(child_tar(b=b"b"))]
NAMES = [digest.partition(":")[2] for digest in chain_ids(LAYERS)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store()
    return store.layout(tmp_path_factory.mktemp("source"), [store.image(LAYERS)])


def test_the_top_layer_is_printed_and_the_log_has_a_line_for_each(source: Path, tmp_path: Path) -> None:
    done = run("import-image", source, tmp_path / "l", "--no-sync")
    assert done.returncode == 0
    assert text_of(done.stdout) == f"{tmp_path / 'l' / NAMES[1]}\n"
    lines = done.stderr.decode().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"layer {number} of 2 {layer.digest[7:19]}" for number, layer in enumerate(LAYERS, 1)
    ]
    again = run("import-image", source, tmp_path / "l")
    assert again.stdout == done.stdout
    assert [line.rpartition(": ")[2] for line in again.stderr.decode().splitlines()] == ["already exists"] * 2


def test_quiet_prints_nothing_but_the_top_layer(source: Path, tmp_path: Path) -> None:
    assert succeed("import-image", source, tmp_path / "l", "--no-sync", "-q") == f"{tmp_path / 'l' / NAMES[1]}\n"


def test_json_is_an_object_for_each_event_and_the_summary(source: Path, tmp_path: Path) -> None:
    records = [
        json.loads(line) for line in succeed("import-image", source, tmp_path / "l", "--no-sync", "--json").splitlines()
    ]
    summary = records.pop()
    assert summary["event"] == "image-done"
    assert summary["top"] == str(tmp_path / "l" / NAMES[1])
    assert summary["platform"] == "windows/amd64/10.0.20348.1"
    assert [layer["chain_id"] for layer in summary["layers"]] == chain_ids(LAYERS)
    assert [layer["diff_id"] for layer in summary["layers"]] == [layer.diff_id for layer in LAYERS]
    assert [layer["digest"] for layer in summary["layers"]] == [layer.digest for layer in LAYERS]
    kinds = [record["event"] for record in records if record["event"] != "layer-progress"]
    assert kinds == ["layer-started", "layer-committing", "layer-done"] * 2


@pytest.mark.parametrize("arguments", ["SOURCE", "SOURCE DIR x", "SOURCE DIR --jobs 0", "SOURCE DIR --platform"])
def test_wrong_calls_make_nothing(source: Path, tmp_path: Path, arguments: str) -> None:
    places = {"SOURCE": str(source), "DIR": str(tmp_path / "l")}
    assert call("import-image", *(places.get(word, word) for word in arguments.split())).exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("missing DIR", "missing: No such file or directory"),
        ("- DIR", "standard input: no container image"),
        ("SOURCE DIR --platform windows/amd64/10.0.1 --os-version 10.0.2", "another version"),
        ("SOURCE DIR --os-version 10.0.2034", "no container image for windows/10.0.2034"),
        ("oci:SOURCE:v1 DIR", "nothing is called 'v1'"),
        ("SOURCE DIR --platform linux", "available: windows/amd64/10.0.20348.1"),
        ("SOURCE DIR --platform //", "not a platform"),
        ("SOURCE missing/DIR", "No such file or directory"),
    ],
)
def test_failures_are_one_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"DIR": str(tmp_path / "l")}
    words = arguments.replace("SOURCE", str(source)).split()
    result = call("import-image", *(places.get(word, word) for word in words))
    assert result.exit_code == 1
    assert result.stderr.startswith("cimlayer: ")
    assert message in result.stderr.replace("Path not found", "No such file or directory")  # Windows has both
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_neither_bars_nor_archives_are_imported_before_they_are_needed() -> None:
    probe = "import sys, cimlayer.cli; assert not {'tarfile', 'isal'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)


def test_a_terminal_gets_a_line_for_each_layer(source: Path, tmp_path: Path) -> None:
    shown = shown_on_a_terminal("import-image", source, tmp_path / "l", "--no-sync")
    lines = [line.rpartition("\x1b[K")[2] for line in shown.splitlines()]
    assert lines[0].startswith("layer 1 of 2")
    assert ": 3.0 MiB of files in " in lines[0]
    assert lines[2] == str(tmp_path / "l" / NAMES[1])
