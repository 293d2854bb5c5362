"""Shared libraries with the exports of cimfs.dll, built for tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import ROOT

RECORDING = ROOT / "tests/c/recording_cimfs.c"
BUILD_SCRIPT = ROOT / "cimfs_ext/libcimfs/build.py"
MINGW = "x86_64-w64-mingw32-gcc"

Recorder = Callable[[], list[dict[str, object]]]

needs_dlopen = pytest.mark.skipif(sys.platform == "win32", reason="on Windows only the system's library is loaded")


def c_compiler() -> str:
    """A compiler for this system; the test is skipped without one."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    return compiler


def build_recording(output: Path, *flags: str, compiler: str | None = None) -> Path:
    """The recording library of tests/c."""
    command = [compiler or c_compiler(), "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *flags]
    subprocess.run([*command, str(RECORDING), "-o", str(output)], check=True)
    return output


def install_libcimfs(prefix: Path, compiler: str | None = None) -> Path:
    """libcimfs as its build script makes it; the directory it was installed to."""
    flags = "-O1 -Wall -Wextra -Wshadow -Wconversion -Werror"
    environment = {**os.environ, "CC": compiler or c_compiler(), "CFLAGS": flags}
    subprocess.run([sys.executable, str(BUILD_SCRIPT), "--prefix", str(prefix)], check=True, env=environment)
    return prefix


def build_system_calls(output: Path) -> Path:
    """The library of tests/c that is preloaded; the test is skipped where there is no such thing."""
    if sys.platform != "linux":
        pytest.skip("a library between a process and the system's calls is made for Linux")
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-fPIC", "-shared"]
    subprocess.run([c_compiler(), *flags, ROOT / "tests/c/system_calls.c", "-o", output], check=True)
    return output


def run_preloaded(library: Path, root: Path, code: str, *arguments: str, **settings: str) -> None:
    """Run Python code that can import the tests, with that library around what it does below the root."""
    environment = os.environ | {"LD_PRELOAD": str(library), "CALLS_ROOT": str(root)} | settings
    environment["PYTHONPATH"] = str(ROOT / "tests")
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment, timeout=600)


def read_record(path: Path) -> list[dict[str, object]]:
    """The calls that a recording library got, with its hexadecimal values as they are."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def wide(text: str) -> str:
    """How the record shows a string."""
    return text.encode("utf-16-le").hex()
