"""The C library under AddressSanitizer and UBSan: scenarios, failing file operations and failing allocations."""

import shutil
import subprocess
from pathlib import Path

import pytest

from support import ROOT

FLAGS = [
    *("-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Icimfs_ext", "-Itests/c"),
    *("-Dmalloc=memory_malloc", "-Dcalloc=memory_calloc", "-Drealloc=memory_realloc"),
]


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_scenarios_and_failing_file_operations(tmp_path: Path) -> None:
    program = tmp_path / "test_libcimfs"
    names = (
        "test_libcimfs",
        "test_calls",
        "test_overlay",
        "test_readahead",
        "test_behind",
        "memory_images",
        "memory_io",
    )
    sources = [ROOT / "tests" / "c" / f"{name}.c" for name in names]
    sources += [
        source
        for source in sorted((ROOT / "cimfs_ext" / "libcimfs").glob("*.c"))
        if source.name != "overlay.c"  # test_overlay.c includes it
    ]
    built = subprocess.run(
        ["clang", *FLAGS, *sources, "-o", program], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    if "libclang_rt" in built.stderr and "undefined" not in built.stderr:
        pytest.skip("clang has no sanitizer runtime here")
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [program], cwd=tmp_path, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-10_000:]
    assert done.stdout.endswith("\n0 failures\n")
