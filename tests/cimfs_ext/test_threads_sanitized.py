"""Calls that overlap, with the compiled modules under AddressSanitizer: what is used after it was freed ends it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

PACKAGES = ROOT / "python"
ROUNDS = 40  # of each thread: the sanitizer needs no luck to see a use after free
# Behind setup.py's own flags, so that they win: optimising would take most of the time.
COMPILER = """#!/bin/sh
exec gcc "$@" -O0 -g1 -fsanitize=address -fno-omit-frame-pointer
"""


def sanitizer() -> Path | None:
    """The runtime of gcc's AddressSanitizer, which the interpreter has to load first."""
    if sys.platform != "linux" or shutil.which("gcc") is None:
        return None
    asked = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, encoding="utf-8", check=True)
    found = Path(asked.stdout.strip())
    return found if found.is_absolute() and found.exists() else None


def build(scratch: Path) -> Path:
    """A folder of the packages whose compiled modules are sanitized."""
    compiler = scratch / "gcc-asan"
    compiler.write_text(COMPILER, encoding="utf-8")
    compiler.chmod(0o755)
    packages = scratch / "packages"
    words = ["setup.py", "-q", "build_ext", "--build-lib", packages, "--build-temp", scratch / "objects"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "CC": str(compiler)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    for source in (PACKAGES / "cimfs_ext").glob("*.py"):
        shutil.copy(source, packages / "cimfs_ext")
    (packages / "cimlayer").symlink_to(PACKAGES / "cimlayer")
    return packages


def test_no_call_touches_what_another_one_has_freed(tmp_path: Path) -> None:
    runtime = sanitizer()
    if runtime is None:
        pytest.skip("gcc has no AddressSanitizer runtime here")
    pytest.importorskip("Cython")
    packages = build(tmp_path)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(runtime),
        # The interpreter leaves much behind. In files, because pytest takes what is printed.
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={tmp_path / 'report'}",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(packages),
        "CIMLAYER_THREAD_ROUNDS": str(ROUNDS),
    }
    probe = "import cimfs_ext.reader as m; print(m.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert str(packages) in where.stdout, where.stderr[-5000:]
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "run"]
    done = subprocess.run(
        [sys.executable, *words, "tests/cimfs_ext/test_threads.py", "tests/cimfs_ext/test_reentrancy.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    reports = "".join(path.read_text(errors="replace", encoding="utf-8") for path in tmp_path.glob("report.*"))
    assert done.returncode == 0, reports[:10_000] or (done.stdout + done.stderr)[-10_000:]
    assert not reports
