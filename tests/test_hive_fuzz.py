"""The hive engine under the sanitizers: a fixed number of mutated hives, and a replay of known ones."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from support.hives import SHARED, TOMBSTONE, Node, Val, build, corpus

ROOT = Path(__file__).parents[1]
SOURCES = [
    ROOT / "tests/c/fuzz_hive.c",
    *sorted((ROOT / "cimfs_ext/hive").glob("*.c")),
    ROOT / "cimfs_ext/libcimfs/upcase.c",
]
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", f"-I{ROOT / 'cimfs_ext'}", "-fno-sanitize-recover=all"]
RUNS = 20_000

SMALL = Node(
    values=[
        Val("", 1, b"a\0b\0"),
        Val("Значение", 4, b"\1\0\0\0"),
        Val("v", 3, b"123456789"),
        Val("t", tombstone=True),
    ],
    subkeys=[
        Node("A", class_name="class", subkeys=[Node("B", security=b"\1" * 30)]),
        Node("Ключ", layering=0x83),
        Node("gone", layering=TOMBSTONE),
    ],
)


def compiled(folder: Path, *flags: str) -> Path:
    """The program of tests/c/fuzz_hive.c."""
    compiler = shutil.which("clang")
    if compiler is None:
        pytest.skip("clang is not installed")
    program = folder / "fuzz_hive"
    command = [compiler, *FLAGS, *flags, *map(str, SOURCES), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "libclang_rt" in built.stderr or "unsupported option" in built.stderr:
        pytest.skip("clang has no fuzzer or sanitizer runtime")
    assert built.returncode == 0, built.stderr
    return program


def with_log(hive: bytes, log: bytes) -> bytes:
    """An input of a hive and its log."""
    return b"LOGS" + struct.pack("<I", len(hive)) + hive + log


def entry(sequence: int, bins: bytes) -> bytes:
    """A log entry that replaces all bins; the fuzz target makes its hashes right."""
    body = struct.pack("<16xII", 0, len(bins)) + bins
    size = (24 + len(body) + 511) // 512 * 512
    header = struct.pack("<4sIIIII", b"HvLE", size, 0, sequence, len(bins), 1)
    return header + body.ljust(size - 24, b"\0")


def seeds() -> dict[str, bytes]:
    """Hives of every layout, dirty ones with logs of both kinds, and the small ones of the corpus."""
    found = {
        f"{minor}-{leaf.decode()}-{size}": build(
            SMALL, minor=minor, leaf=leaf, leaf_size=size, layered=minor == 6
        )
        for minor in (3, 5, 6)
        for leaf in (b"li", b"lf", b"lh")
        for size in (1, 100)
    }
    found["big-data"] = build(Node(values=[Val("v", 3, bytes(40000))]))
    found["many-values"] = build(Node(values=[Val(f"v{i}", 3, b"%d" % i) for i in range(40)]))
    found["deep"] = build(
        Node(subkeys=[Node("a", subkeys=[Node("b", subkeys=[Node("c", subkeys=[Node("d")])])])])
    )
    dirty, clean = build(Node(), sequences=(2, 1)), build(SMALL, sequences=(2, 2))
    header = bytearray(clean[:512])
    struct.pack_into("<I", header, 28, 6)
    found["new-log"] = with_log(dirty, bytes(header) + entry(1, dirty[4096:]) + entry(2, clean[4096:]))
    struct.pack_into("<I", header, 28, 1)
    sectors = (len(clean) - 4096) // 512
    bitmap = b"\xff" * (sectors // 8)
    found["old-log"] = with_log(dirty, bytes(header) + (b"DIRT" + bitmap).ljust(512, b"\0") + clean[4096:])
    if (SHARED / "hives").exists():
        for name in ("OffHive", "BCD", "SECURITY", "TruncatedHive"):
            found[name] = corpus(name)
        found["real-log"] = with_log(corpus("NewDirtyHive1.hive")[:24576], corpus("NewDirtyHive1.LOG2"))
    return found


def findings() -> dict[str, bytes]:
    """What the fuzzer has found, as the smallest hives that show it."""
    tombstone_with_data = build(Node(values=[Val("v", 4, b"\1\0\0\0")]), layered=True, minor=6)
    at = tombstone_with_data.index(b"vk") + 16
    return {
        "a tombstone with data was written with its size and no data": (
            tombstone_with_data[:at] + b"\3\0" + tombstone_with_data[at + 2 :]
        ),
    }


def test_seeds_and_findings_replay_cleanly(tmp_path: Path) -> None:
    program = compiled(tmp_path, "-fsanitize=address,undefined")
    for name, data in (seeds() | findings()).items():
        file = tmp_path / "input"
        file.write_bytes(data)
        run = subprocess.run([program, file], capture_output=True, text=True, check=False, timeout=60)
        assert run.returncode == 0, f"{name}: {run.stderr}"


def test_mutated_hives_are_survived(tmp_path: Path) -> None:
    program = compiled(tmp_path, "-fsanitize=fuzzer,address,undefined", "-DHIVE_FUZZER")
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, data in seeds().items():
        (folder / name).write_bytes(data)
    limits = ["-seed=1", f"-runs={RUNS}", "-max_len=65536", "-rss_limit_mb=512", "-timeout=10"]
    run = subprocess.run(
        [program, *limits, f"-artifact_prefix={tmp_path}{os.sep}", folder],
        capture_output=True, text=True, errors="replace", check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    assert f"Done {RUNS} runs" in run.stderr
