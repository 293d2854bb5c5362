"""Lists the compiled parts; everything else about the package is in pyproject.toml."""

import os
import sys

from setuptools import Extension, setup

try:
    from Cython.Build import cythonize
except ImportError:
    sys.exit("cimlayer: building from source needs Cython 3.1 or later (pip install 'Cython>=3.1,<4')")

LIBCIMFS = [
    f"cimfs_ext/libcimfs/{name}.c"
    for name in (
        "content",
        "contentid",
        "error",
        "filetable",
        "guid",
        "image",
        "linktable",
        "metadata",
        "names",
        "objectid",
        "objects",
        "overlay",
        "reader",
        "region",
        "tree",
        "upcase",
        "verify",
        "walked",
        "io_win32" if sys.platform == "win32" else "io_posix",
    )
]

TAR = [f"cimfs_ext/liblayer/{name}.c" for name in ("tar", "tarheader", "tarnumber", "tarrecords")]

BUILDER = [
    *(f"cimfs_ext/liblayer/{name}.c" for name in ("builder", "path", "pathset")),
    *(f"cimfs_ext/libcimfs/{name}.c" for name in ("names", "upcase")),
]

IMPORTER = [*(f"cimfs_ext/liblayer/{name}.c" for name in ("base64", "ea", "importer", "reparse")), *TAR, *BUILDER]

HIVE = [
    *(f"cimfs_ext/hive/{name}.c" for name in ("arena", "merge", "names", "order", "read", "recover", "tree", "write")),
    "cimfs_ext/libcimfs/upcase.c",
]

LIBRARIES = {"win32": ["bcrypt"], "linux": ["dl"]}.get(sys.platform, [])  # dl: before glibc 2.34

if sys.platform == "win32":
    CFLAGS = ["/O2", "/std:c11", "/experimental:c11atomics"]
else:
    # -O3 vectorises the hash; warnings are made fatal by CI alone, through CFLAGS.
    CFLAGS = ["-std=c11", "-O3", "-fvisibility=hidden", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64"]


def extension(name: str, *sources: str) -> Extension:
    """One compiled module: its .pyx and the C files that it alone links."""
    return Extension(
        f"cimfs_ext.{name}",
        [f"cimfs_ext/{name}.pyx", *sources],
        include_dirs=["cimfs_ext"],
        extra_compile_args=CFLAGS,
        libraries=LIBRARIES,
    )


EXTENSIONS = [
    extension("implementation", "cimfs_ext/system.c", *LIBCIMFS),
    extension("image"),
    extension("volumes"),
    extension("reader", *LIBCIMFS),
    extension("builder", *BUILDER),
    extension("importer", *IMPORTER),
    extension("tarindex", *TAR),
    extension("regf", *HIVE),
    extension("contentid", "cimfs_ext/libcimfs/contentid.c"),
    extension("crc32c"),
    extension("names", "cimfs_ext/libcimfs/upcase.c"),
    extension("backupstream", "cimfs_ext/liblayer/backupstream.c"),
]
if sys.platform != "win32":
    EXTENSIONS.append(extension("extractor", "cimfs_ext/liblayer/extract.c", *LIBCIMFS))

setup(
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
    ext_modules=cythonize(
        EXTENSIONS,
        nthreads=0 if sys.platform == "win32" else (os.cpu_count() or 1),
        include_path=["python"],  # where the .pxd files are, beside the stubs
        compiler_directives={
            "language_level": "3str",
            "boundscheck": False,
            "wraparound": False,
            "embedsignature": True,
        },
    ),
)
