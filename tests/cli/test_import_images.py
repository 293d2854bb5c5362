"""`cimlayer import-images`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cimlayer import LayerStore
from support.commands import call, program, run, wait_until
from support.containers import base_tar, gzipped
from support.fleets import assert_clean, distinct, family
from support.registries import Request, running
from support.terminals import shown_on_a_terminal

LINES = """
# four images, and what is none
{0}
oci:{1}

{2}
  {3}
{0}/missing
nonsense:x
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return family(tmp_path_factory.mktemp("sources"), 4)


def test_every_image_has_a_line_and_so_has_every_failure(sources: list[Path], tmp_path: Path) -> None:
    (tmp_path / "list").write_text(LINES.format(*sources), encoding="utf-8")
    result = run("import-images", tmp_path / "list", tmp_path / "store", "--no-sync", "--jobs", "1")
    assert result.returncode == 1
    tops = dict(line.split("  ")[::-1] for line in result.stdout.decode().splitlines())
    assert set(tops) == {str(sources[0]), f"oci:{sources[1]}", str(sources[2]), str(sources[3])}
    assert all(Path(top).parent == tmp_path / "store" for top in tops.values())
    lines = result.stderr.decode().splitlines()
    assert sum(line.startswith("layer ") for line in lines) == distinct(4)
    failed = [line for line in lines if line.startswith("cimlayer: ")]
    assert sorted(line.removeprefix(f"cimlayer: {tmp_path / 'list'}:")[:2] for line in failed[:2]) == ["8:", "9:"]
    assert "nonsense:x: No such file" in "".join(failed)
    assert failed[2:] == ["cimlayer: 2 of 6 images failed"]
    assert_clean(LayerStore(tmp_path / "store"), distinct(4))


def test_json_has_events_and_an_object_for_each_image(sources: list[Path], tmp_path: Path) -> None:
    words = ["import-images", "-", tmp_path / "store", "--no-sync", "--json", "--jobs", "1"]
    text = f"{sources[0]}\n/missing\n".encode()
    result = subprocess.run(program(*words), input=text, capture_output=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (1, b"")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    kinds = [record["event"] for record in records]
    assert sorted(kinds) == ["image-done", "image-failed", *["layer-done"] * 3, *["layer-started"] * 3]
    done, failed = records[kinds.index("image-done")], records[kinds.index("image-failed")]
    assert (done["source"], done["line"]) == (str(sources[0]), 1)
    assert [layer["reused"] for layer in done["layers"]] == [False] * 3
    assert (failed["source"], failed["line"]) == ("/missing", 2)
    assert "No such file" in failed["message"]


@pytest.mark.parametrize("arguments", ["LIST", "LIST STORE x", "LIST STORE --jobs 0", "LIST STORE --jobs 1 --dask x"])
def test_wrong_calls_make_nothing(tmp_path: Path, arguments: str) -> None:
    places = {"LIST": str(tmp_path / "list"), "STORE": str(tmp_path / "store")}
    assert call("import-images", *(places.get(word, word) for word in arguments.split())).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = call("import-images", tmp_path / "list", tmp_path / "store")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert not (tmp_path / "store").exists()


def test_an_empty_list_is_done(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# nothing\n", encoding="utf-8")
    assert call("import-images", tmp_path / "list", tmp_path / "store").exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes there")
def test_ctrl_c_stops_the_workers_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    """All processes of a terminal get it."""
    blob = gzipped(base_tar(a=os.urandom(4 << 20)))
    over = threading.Event()

    def stall(request: Request) -> bool:
        """The layer begins, and never comes to its end."""
        if request.command != "GET" or len(registry.store.blobs.get(request.path.rpartition("/")[2], b"")) < 1 << 20:
            return False
        request.start(200, {"Content-Length": str(len(blob.blob))})
        request.send(blob.blob[: 3 << 20])
        over.wait()
        return True

    with running() as registry:
        registry.hook = stall
        image = registry.tag("win/app:v1", registry.store.image([blob]))
        (tmp_path / "list").write_text(image, encoding="utf-8")
        words = ["import-images", tmp_path / "list", tmp_path / "store", "--tls-verify=false", "--json", "--jobs", "2"]
        with subprocess.Popen(
            program(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            claims = LayerStore(tmp_path / "store").layout.claims
            wait_until(lambda: any(claims.glob("*/*/cim-layers/region_*")), process)
            os.killpg(process.pid, signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        over.set()
    assert (process.returncode, errors) == (130, b"")
    assert [json.loads(line)["event"] for line in output.splitlines()] == ["layer-started"]
    assert_clean(LayerStore(tmp_path / "store"), 0)


def test_on_a_terminal_a_bar_counts_the_layers(sources: list[Path], tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{sources[0]}\n/missing\n", encoding="utf-8")
    words = ("import-images", tmp_path / "list", tmp_path / "store", "--no-sync", "--jobs", "1")
    shown = shown_on_a_terminal(*words, environment={"TERM": "xterm"})
    drawn = shown.split("\r\x1b[K")
    assert any(text.startswith("importing: ") and "1 layer done, 1 being" in text for text in drawn)
    lines = [line for line in drawn[-1].strip("\r").splitlines() if line]
    assert lines[-1] == "cimlayer: 1 of 2 images failed"
    assert not any("importing" in text and "\n" in text for text in drawn)  # each is gone before a line comes
    assert sum("of files in" in text for text in drawn) == 3
