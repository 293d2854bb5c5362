"""Build libcimfs as a shared library, for programs in other languages.

    python cimfs_ext/libcimfs/build.py --prefix /usr/local

installs ``lib/libcimfs.so`` (``.dylib``, or ``bin/cimfs.dll``), ``include/libcimfs/*.h`` and
``lib/pkgconfig/libcimfs.pc``. The compiler is ``CC`` (gcc, clang or a cross compiler for Windows), its extra flags are
``CFLAGS``.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADERS = (HERE.parent / "cimfs.h", HERE / "libcimfs.h")
FLAGS = ["-std=c11", "-O3", "-fvisibility=hidden", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64"]

PKG_CONFIG = """\
prefix={prefix}
libdir=${{prefix}}/lib
includedir=${{prefix}}/include/libcimfs

Name: libcimfs
Description: Writes CimFS images through the functions of cimfs.dll
Version: {version}
Libs: -L${{libdir}} -lcimfs
Cflags: -I${{includedir}}
"""


def compile_library(output_directory: Path) -> Path:
    """The shared library for the compiler's target, made in that directory."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    target = subprocess.run([*compiler, "-dumpmachine"], check=True, capture_output=True, encoding="utf-8").stdout
    if "mingw" in target:
        name, other, link = "cimfs.dll", "_posix.c", ["-shared", "-static-libgcc"]
    elif "apple" in target:
        name, other, link = "libcimfs.dylib", "_win32.c", ["-dynamiclib", "-install_name", "@rpath/libcimfs.dylib"]
    else:
        name, other, link = "libcimfs.so", "_win32.c", ["-fPIC", "-shared", "-Wl,-soname,libcimfs.so"]
    libraries = ["-lbcrypt", "-lntdll"] if "mingw" in target else ["-pthread"]
    output_directory.mkdir(parents=True, exist_ok=True)
    library = output_directory / name
    sources = sorted(source for source in HERE.glob("*.c") if not source.name.endswith(other))
    flags = [*FLAGS, *shlex.split(os.environ.get("CFLAGS", ""))]
    files = [*map(str, sources), *libraries, "-o", str(library)]
    subprocess.run([*compiler, *flags, *link, f"-I{HERE.parent}", *files], check=True)
    return library


def version() -> str:
    """The package's version, which is the library's too."""
    text = (HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


def install(prefix: Path) -> Path:
    """Library, headers and pkg-config file below ``prefix``; returns the library's path."""
    library = compile_library(prefix / "lib")
    if library.suffix == ".dll":
        library = library.replace(_made(prefix / "bin") / library.name)
    for header in HEADERS:
        shutil.copy(header, _made(prefix / "include" / "libcimfs"))
    description = PKG_CONFIG.format(prefix=prefix.absolute(), version=version())
    (_made(prefix / "lib" / "pkgconfig") / "libcimfs.pc").write_text(description, encoding="utf-8")
    return library


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build and install libcimfs as a shared library.")
    parser.add_argument("--prefix", type=Path, required=True, help="where to install, such as /usr/local")
    install(parser.parse_args().prefix)
