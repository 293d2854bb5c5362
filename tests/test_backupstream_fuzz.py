"""The backup stream parser under libFuzzer, with the address and undefined behaviour sanitizers."""

import shutil
import subprocess
from pathlib import Path

import pytest

from cimfs_ext.backupstream import BackupStreamWriter

ROOT = Path(__file__).parents[1]
RUNS = 100_000
SANITIZE = "-fsanitize=fuzzer,address,undefined"


def seeds() -> list[bytes]:
    """Inputs as fuzz_backupstream.c takes them: cut, file size, backup stream."""
    make = BackupStreamWriter
    metadata = [*make.security(b"descriptor"), *make.extended_attributes(b"EAs"), *make.reparse(b"reparse")]
    streams = [*make.alternate_stream("zone", b"12"), *make.sparse_alternate_stream("map", 80, [(8, b"34")])]
    ranges = {"nothing": [], "one": [(0, b"a" * 64)], "several": [(4, b"b" * 8), (32, b"c")]}
    contents = [make.sparse_data(64, chosen) for chosen in ranges.values()]
    return [
        bytes([index, 64, 0]) + b"".join([*metadata, *content, *streams, *make.links("other")])
        for index, content in enumerate(contents)
    ]


@pytest.fixture
def fuzzer(tmp_path: Path) -> Path:
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("clang is not installed")
    probe = tmp_path / "probe.c"
    probe.write_text(
        "#include <stddef.h>\n#include <stdint.h>\n"
        "int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return data == NULL && size; }\n"
    )
    command = [clang, SANITIZE, probe, "-o", tmp_path / "probe"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this clang comes without libFuzzer")
    program = tmp_path / "fuzz_backupstream"
    subprocess.run(
        [
            *(clang, "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"),
            *(SANITIZE, "-fno-sanitize-recover=all", "-I", ROOT / "cimfs_ext"),
            ROOT / "tests" / "c" / "fuzz_backupstream.c",
            ROOT / "cimfs_ext" / "liblayer" / "backupstream.c",
            *("-o", program),
        ],
        check=True,
    )
    return program


def test_parser_holds_under_fuzzing(fuzzer: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index, seed in enumerate(seeds()):
        (corpus / str(index)).write_bytes(seed)
    run = subprocess.run(
        [fuzzer, f"-runs={RUNS}", "-seed=1", "-max_len=1024", f"-artifact_prefix={tmp_path}/", corpus],
        capture_output=True, text=True, errors="replace", check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert f"Done {RUNS} runs" in run.stderr
