"""`cimlayer import`, and the other commands on the layers that it makes."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cimfs_ext.regf import Hive
from support.commands import call, is_drained, program, run, succeed, wait_until
from support.hives import with_checksum
from support.tars import TarBuilder

HIVES = ("SYSTEM", "SOFTWARE", "SAM", "SECURITY", "DEFAULT")
HIVE = Hive.empty(0).to_bytes()
CONTENT = b"content of a file" * 1000


def base_tar() -> TarBuilder:
    builder = TarBuilder()
    for name in HIVES:
        builder.file(f"Files/Windows/System32/config/{name}", HIVE)
    builder.file("Files/file.txt", CONTENT)
    return builder


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tars") / "base.tar"
    path.write_bytes(base_tar().finish())
    return path


@pytest.fixture(scope="module")
def child_tar(tar: Path) -> Path:
    builder = TarBuilder()
    builder.file("Files/new.txt", b"new")
    builder.whiteout("Files/file.txt")
    path = tar.with_name("child.tar")
    path.write_bytes(builder.finish())
    return path


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if path.is_file()]


def test_import_prints_entries_bytes_and_time(tar: Path, tmp_path: Path) -> None:
    layer = tmp_path / "1"
    shown = succeed("import", tar, layer, "--no-sync")
    size = 5 * len(HIVE) + len(CONTENT)
    assert shown.startswith(f"{layer}: 6 entries, {size / 1024:.1f} KiB of files, ")
    assert shown.endswith(" s\n")
    assert succeed("ls", layer, "Files") == "file.txt\nWindows/\n"
    assert run("cat", layer, "Files/file.txt").stdout == CONTENT
    assert succeed("verify", layer).splitlines()[-1] == "no problems"
    assert [line.split()[0] for line in succeed("hive", "show", layer).splitlines()] == list(HIVES)


def test_import_makes_the_directories_above_the_layer(tar: Path, tmp_path: Path) -> None:
    succeed("import", tar, tmp_path / "new" / "layers" / "1", "--no-sync")
    assert (tmp_path / "new" / "layers" / "cim-layers" / "1.cim").is_file()
    assert call("import", tmp_path / "missing.tar", tmp_path / "other" / "layers" / "1").exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_import_json_is_an_object_for_each_event_and_the_summary(tar: Path, tmp_path: Path) -> None:
    shown = succeed("import", tar, tmp_path / "1", "--no-sync", "--json")
    *events, summary = map(json.loads, shown.splitlines())
    assert [event["event"] for event in events] == [
        "layer-started",
        "layer-progress",
        "layer-committing",
        "layer-done",
    ]
    assert summary.pop("seconds") > 0
    assert summary == {
        "event": "import-done",
        "layer": str(tmp_path / "1"),
        "image": str(tmp_path / "cim-layers" / "1.cim"),
        "entries": 6,
        "bytes": 5 * len(HIVE) + len(CONTENT),
        "utility_vm": None,
    }


def test_import_with_another_choice_for_the_utility_vm_and_without_scratch_disks(tar: Path, tmp_path: Path) -> None:
    succeed("import", tar, tmp_path / "1", "--no-sync", "--no-scratch-disks", "--utility-vm", "keep")
    assert not list((tmp_path / "1").glob("*.vhdx"))
    assert call("import", tar, tmp_path / "2", "--utility-vm", "never").exit_code == 2


def test_scratch_makes_one_pair_for_a_store(tmp_path: Path) -> None:
    succeed("scratch", tmp_path, "--no-sync")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blank-base.vhdx", "blank.vhdx"]
    again = call("scratch", tmp_path)
    assert again.exit_code == 1
    assert again.stderr == f"cimlayer: {tmp_path / 'blank-base.vhdx'}: File exists\n"


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_import_of_a_dirty_delta_warns_in_one_line(tar: Path, tmp_path: Path, option: str) -> None:
    succeed("import", tar, tmp_path / "1", "--no-sync")
    dirty = bytearray(HIVE)
    dirty[8:12] = bytes(4)
    delta = TarBuilder()
    delta.file("Hives/SYSTEM_DELTA", with_checksum(bytes(dirty)))
    (tmp_path / "delta.tar").write_bytes(delta.finish())
    result = call("import", tmp_path / "delta.tar", tmp_path / "2", "--parent", tmp_path / "1", "--no-sync", option)
    text = r"layer 2: Hives\SYSTEM_DELTA: a dirty hive is read as it is"
    assert result.exit_code == 0
    assert result.stderr == ("" if option == "--quiet" else f"cimlayer: warning: {text}\n")
    if option == "--json":
        events = [json.loads(line) for line in result.stdout.splitlines()]
        assert {"event": "layer-warning", "layer": str(tmp_path / "2"), "text": text} in events


def test_import_of_a_child_needs_its_parents(tar: Path, child_tar: Path, tmp_path: Path) -> None:
    succeed("import", tar, tmp_path / "1", "--no-sync")
    succeed("import", child_tar, tmp_path / "2", "--parent", tmp_path / "1", "--no-sync")
    succeed("import", child_tar, tmp_path / "3", "--parent", tmp_path / "2", "--parent", tmp_path / "1", "--no-sync")
    assert succeed("ls", tmp_path / "3", "Files") == "new.txt\nWindows/\n"
    result = call("import", child_tar, tmp_path / "4")
    assert result.exit_code == 1
    assert result.stderr.startswith("cimlayer: ")
    assert not (tmp_path / "4").exists()


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_import_reads_standard_input(tar: Path, tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    done = run("import", "-", tmp_path / "1", "--no-sync", input=compress(tar.read_bytes()))
    assert (done.returncode, done.stderr) == (0, b"")
    assert run("cat", tmp_path / "1", "Files/file.txt").stdout == CONTENT


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_import_of_a_closed_standard_input_fails_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    command = ["sh", "-c", '"$@" <&-', "sh", *program("import", "-", tmp_path / "layer")]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"cimlayer: Bad file descriptor\n")
    assert os.listdir(tmp_path) == []


def test_reproducible_imports_are_equal_whatever_the_jobs(tar: Path, tmp_path: Path) -> None:
    images = []
    for place, jobs in (("a", "1"), ("b", "2")):
        (tmp_path / place).mkdir()
        succeed("import", tar, tmp_path / place / "1", "--reproducible", "--no-sync", "--jobs", jobs)
        files = sorted((tmp_path / place / "cim-layers").iterdir())
        images.append([(path.name, path.read_bytes()) for path in files])
    assert images[0] == images[1]


@pytest.mark.parametrize("arguments", ["TAR", "TAR LAYER x", "TAR LAYER --jobs 0", "TAR LAYER --parent"])
def test_wrong_calls_make_nothing(tar: Path, tmp_path: Path, arguments: str) -> None:
    places = {"TAR": str(tar), "LAYER": str(tmp_path / "1")}
    result = call("import", *(places.get(word, word) for word in arguments.split()))
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no tar at all" * 100, ""),
        (base_tar().finish()[:5000], ""),
        (gzip.compress(base_tar().finish())[:-300], "gzip"),
        (TarBuilder().finish(), ""),
    ],
    ids=["garbage", "cut", "cut gzip", "no hives"],
)
def test_bad_input_fails_in_one_line_and_leaves_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    tar = tmp_path / "layer.tar"
    tar.write_bytes(content)
    result = call("import", tar, tmp_path / "1")
    assert result.exit_code == 1
    assert result.stderr.startswith("cimlayer: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert leftovers(tmp_path) == ["layer.tar"]


def test_missing_tar_fails_in_one_line(tmp_path: Path) -> None:
    result = call("import", tmp_path / "missing.tar", tmp_path / "1")
    assert result.exit_code == 1
    assert result.stderr == f"cimlayer: {tmp_path / 'missing.tar'}: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="another signal on Windows")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_ends_an_import_that_waits_for_input(tmp_path: Path, jobs: str) -> None:
    with subprocess.Popen(
        program("import", "-", tmp_path / "1", "--jobs", jobs),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stderr
        process.stdin.write(base_tar().finish()[:-1024])
        process.stdin.flush()
        images = tmp_path / "cim-layers"
        stdin = process.stdin
        wait_until(lambda: images.is_dir() and bool(os.listdir(images)) and is_drained(stdin), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""
    assert leftovers(tmp_path) == []


def test_a_failed_import_does_not_wait_for_the_rest_of_its_input(tmp_path: Path) -> None:
    with subprocess.Popen(
        program("import", "-", tmp_path / "1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin and process.stderr
        left = memoryview(b"no tar at all" * 100_000)
        with contextlib.suppress(BrokenPipeError):  # the program may end while it is fed
            while left:
                left = left[process.stdin.write(left) :]
        assert process.wait(60) == 1
        assert process.stderr.read().startswith(b"cimlayer: ")
    assert leftovers(tmp_path) == []


def test_import_checks_digests(tar: Path, tmp_path: Path) -> None:
    compressed = tmp_path / "base.tar.gz"
    compressed.write_bytes(gzip.compress(tar.read_bytes()))
    digest, diff_id = (f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in (compressed, tar))
    succeed("import", compressed, tmp_path / "1", "--no-sync", "--digest", digest, "--diff-id", diff_id)
    for option, wrong in (("--digest", diff_id), ("--diff-id", digest)):
        result = call("import", compressed, tmp_path / "2", option, wrong)
        assert result.exit_code == 1
        assert wrong in result.stderr
        assert not (tmp_path / "2").exists()
    assert call("import", compressed, tmp_path / "2", "--digest", "md5:0").exit_code == 1


def test_the_immediate_parent_is_enough(tar: Path, child_tar: Path, tmp_path: Path) -> None:
    layers = [tmp_path / name for name in "123"]
    succeed("import", tar, layers[0], "--no-sync")
    succeed("import", child_tar, layers[1], "--no-sync", "--parent", layers[0])
    succeed("import", child_tar, layers[2], "--no-sync", "--parent", layers[1])
    assert succeed("chain", layers[2]).splitlines() == [str(layer) for layer in reversed(layers)]
    result = call("import", child_tar, tmp_path / "4", "--parent", layers[1], "--parent", layers[2])
    assert result.exit_code == 1
    assert "is not a layer below" in result.stderr


def test_what_is_no_tar_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\3\4" + bytes(1000))
    result = call("import", tmp_path / "a.zip", tmp_path / "1")
    assert result.stderr.endswith(f"{tmp_path / 'a.zip'}: not a tar: zip\n")
