"""How the compiled modules are made; everything else about the package is in pyproject.toml.

Each C file is compiled once, into a static library that every module links. Only what is older than its sources is
made again: ``python setup.py build_ext --inplace`` after a change compiles what includes the changed file, in parallel.

``CFLAGS`` comes after the flags below and wins over them. Objects do not remember their flags, so change them with
``--force``:

    CFLAGS="-O0 -g" python setup.py build_ext --inplace --force
    CFLAGS="-g -fsanitize=address,undefined" python setup.py build_ext --inplace --force
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from Cython.Build import cythonize
except ImportError:
    sys.exit("cimlayer: building from source needs Cython 3.2.1 or later (pip install 'Cython>=3.2.1,<4')")

ROOT = Path("cimfs_ext")
WINDOWS = sysconfig.get_platform().startswith("win")  # what is compiled for, which .ci/windows chooses
MSVC, LINUX = sys.platform == "win32", sys.platform == "linux"
THREADS = os.cpu_count() or 1

WINDOWS_ONLY = ("winfiles.c", "winaccess.c", "winmetadata.c", "winfiles.pyx")
OTHER_PLATFORM = ("_posix.c",) if WINDOWS else ("_win32.c", *WINDOWS_ONLY)  # how their names end
OF_LINUX = ["dl", "pthread"]  # both in libc itself from glibc 2.34 on
SYSTEM_LIBRARIES = ["advapi32", "bcrypt", "ntdll"] if WINDOWS else OF_LINUX if LINUX else []


def sources(pattern: str) -> list[str]:
    """The files of cimfs_ext that this platform compiles."""
    return sorted(file.as_posix() for file in ROOT.glob(pattern) if not file.name.endswith(OTHER_PLATFORM))


# A library comes before those that it uses, since linkers look for a symbol only further on.
LIBRARIES = {
    "hive": sources("hive/*.c"),
    "layer": sources("liblayer/*.c"),
    "cimfs": [*sources("libcimfs/*.c"), *sources("system.c")],
}

# -g0: Python's own flags have -g, and debug information is nine tenths of a module. -O3 vectorises the hash; what
# Cython writes gains nothing by it (its one loop over bytes, CRC-32C, is serial) and compiles a third faster with -O2.
if MSVC:
    FLAGS = CYTHON_FLAGS = ["/O2", "/std:c11", "/experimental:c11atomics"]
else:
    PLATFORM = ["-std=c11", "-g0", "-fvisibility=hidden", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64"]
    USER = shlex.split(os.environ.get("CFLAGS", ""))
    FLAGS = ["-O3", *PLATFORM, *USER]
    CYTHON_FLAGS = ["-O2", *PLATFORM, *USER]


def headers(source: str) -> set[Path]:
    """The headers of ours that a C file includes, those that they include, and so on."""
    found: set[Path] = set()
    waiting = [Path(source)]
    while waiting:
        file = waiting.pop()
        for name in re.findall(r'^\s*#\s*include\s+"(.+?)"', file.read_text(encoding="utf-8"), re.MULTILINE):
            candidates = [directory / name for directory in (file.parent, ROOT)]
            header = next((candidate for candidate in candidates if candidate.exists()), None)
            if header is not None and header not in found:
                found.add(header)
                waiting.append(header)
    return found


def stale(product: str, needed: Iterable[str | Path]) -> bool:
    """Whether a file has to be made (again) from those that it needs."""
    if not Path(product).exists():
        return True
    made = Path(product).stat().st_mtime_ns
    return any(Path(source).stat().st_mtime_ns > made for source in needed)


class BuildExtensions(build_ext):
    """Makes the static libraries before the modules, and compiles only what is stale."""

    def build_extensions(self) -> None:
        """Called by setuptools once the compiler is set up."""
        compile_always = self.compiler.compile

        def compile_stale(files: list[str], output_dir: str | None = None, **options: object) -> list[str]:
            def compiled(source: str) -> str:
                [product] = self.compiler.object_filenames([source], output_dir=output_dir)
                if self.force or stale(product, [source, __file__, *headers(source)]):
                    compile_always([source], output_dir, **options)
                return product

            with ThreadPoolExecutor(THREADS) as pool:
                return list(pool.map(compiled, files))

        self.compiler.compile = compile_stale
        archives = [self.build_library(name, files) for name, files in LIBRARIES.items()]
        for extension in self.extensions:
            extension.extra_objects = archives
            extension.depends = [
                *archives,
                *(str(header) for source in extension.sources for header in headers(source)),
            ]
        super().build_extensions()

    def build_library(self, name: str, files: list[str]) -> str:
        """One static library; its path."""
        objects = self.compiler.compile(
            files, self.build_temp, include_dirs=[str(ROOT)], extra_postargs=FLAGS, debug=self.debug
        )
        archive = self.compiler.library_filename(name, output_dir=self.build_temp)
        Path(archive).unlink(missing_ok=True)  # or objects of removed sources would stay in it
        self.compiler.create_static_lib(objects, name, output_dir=self.build_temp)
        newest = max(Path(product).stat().st_mtime_ns for product in objects)
        os.utime(archive, ns=(newest, newest))  # modules are linked again after a change, not after each build
        return archive


def extension(name: str, source: str) -> Extension:
    """One compiled module."""
    return Extension(
        f"{ROOT}.{name}",
        [source],
        include_dirs=[str(ROOT)],
        extra_compile_args=CYTHON_FLAGS,
        libraries=SYSTEM_LIBRARIES,
    )


if __name__ == "__main__":
    SHARED = extension("_shared", f"{ROOT}/_shared.c")  # what Cython would repeat in every module
    setup(
        cmdclass={"build_ext": BuildExtensions},
        options={"build_ext": {"parallel": THREADS}},
        ext_modules=cythonize(
            [SHARED, *(extension(Path(source).stem, source) for source in sources("*.pyx"))],
            shared_utility_qualified_name=SHARED.name,
            nthreads=0 if MSVC else THREADS,
            include_path=["python"],  # where the .pxd files are, beside the stubs
            compiler_directives={
                "language_level": "3str",
                "boundscheck": False,
                "wraparound": False,
                "embedsignature": True,
            },
        ),
    )
