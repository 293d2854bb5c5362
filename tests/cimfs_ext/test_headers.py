"""The public C headers compile alone and strictly, as C and as C++."""

import shutil
import subprocess
from pathlib import Path

import pytest

from support import ROOT

HEADERS = ["cimfs.h", "libcimfs/libcimfs.h"]
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-fsyntax-only"]
COMPILERS = {"gcc": ("c", "c11"), "clang": ("c", "c11"), "g++": ("c++", "c++17"), "clang++": ("c++", "c++17")}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_public_header_compiles_alone_and_strictly(compiler: str, header: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    language, standard = COMPILERS[compiler]
    source = tmp_path / "alone"
    source.write_text(f'#include "{header}"\nint nothing;\n', encoding="utf-8")
    command = [compiler, *STRICT, f"-std={standard}", "-I", ROOT / "cimfs_ext", "-x", language, source]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
