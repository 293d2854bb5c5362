"""The build: what is compiled again after a change, and what the wheel and the source distribution hold."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support import ROOT
from support.libraries import c_compiler
from support.platforms import WINE

pytest.importorskip("setuptools", minversion="77")
pytest.importorskip("Cython", minversion="3.2.1")


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py defines; it names files from its own directory."""
    monkeypatch.chdir(ROOT)
    return runpy.run_path("setup.py")


def test_headers_are_those_that_the_compiler_reads(build: dict[str, Any]) -> None:
    compiler = c_compiler()
    for source in (source for files in build["LIBRARIES"].values() for source in files):
        command = [compiler, "-std=c11", "-D_GNU_SOURCE", "-Icimfs_ext", "-MM", source]
        rule = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
        read = rule.replace("\\\n", " ").split()[2:]  # after "name.o: source"
        found = build["headers"](source)
        assert {header.resolve() for header in found} == {Path(header).resolve() for header in read}, source


MODULE = """\
#include <Python.h>
#include "{header}"
PyMODINIT_FUNC PyInit_{name}(void);
PyMODINIT_FUNC PyInit_{name}(void) {{ return PyErr_Format(PyExc_ImportError, "%d", {value}); }}
"""

PROJECT = {
    "setup.py": """\
import runpy
from setuptools import setup
build = runpy.run_path({setup!r})
build["LIBRARIES"].clear()
build["LIBRARIES"]["small"] = ["cimfs_ext/one.c", "cimfs_ext/two.c"]
extensions = [build["extension"](name, f"cimfs_ext/{{name}}.c") for name in ("first", "second")]
setup(name="small", packages=[], cmdclass={{"build_ext": build["BuildExtensions"]}}, ext_modules=extensions)
""".format(setup=str(ROOT / "setup.py")),
    "cimfs_ext/deep.h": "enum { DEEP = 1 };\n",
    "cimfs_ext/middle.h": '#include "deep.h"\n',
    "cimfs_ext/other.h": "int two(void);\n",
    "cimfs_ext/one.c": '#include "middle.h"\nint one(void);\nint one(void) { return DEEP; }\n',
    "cimfs_ext/two.c": '#include "other.h"\nint two(void) { return 2; }\n',
    "cimfs_ext/first.c": MODULE.format(name="first", header="middle.h", value="DEEP"),
    "cimfs_ext/second.c": MODULE.format(name="second", header="other.h", value="two()"),
}


def write_project(root: Path) -> None:
    for name, text in PROJECT.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def build_project(root: Path) -> set[str]:
    """Build the small project; the names of what was compiled and linked."""
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*.*")}
    run_setup(root, "build_ext", "-b", "out", "-t", "objects")
    made = {file for file in root.rglob("*.*") if before.get(file) != file.stat().st_mtime_ns}
    return {file.name.partition(".cpython")[0] for file in made if file.suffix in {".o", ".so"}}


def run_setup(root: Path, *arguments: str) -> None:
    command = [sys.executable, "setup.py", "-q", *arguments]
    done = subprocess.run(command, check=False, cwd=root, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def touch(root: Path, name: str) -> None:
    """That file is now newer than all others."""
    for file in root.rglob("*"):
        made = file.stat().st_mtime_ns - 10**8
        os.utime(file, ns=(made, made))
    (root / name).touch()


@pytest.mark.skipif(sys.platform == "win32", reason="names of objects and modules are those of other systems")
def test_only_what_is_stale_is_compiled(tmp_path: Path) -> None:
    c_compiler()
    write_project(tmp_path)
    assert build_project(tmp_path) == {"one.o", "two.o", "first.o", "second.o", "first", "second"}
    assert build_project(tmp_path) == set()
    touch(tmp_path, "cimfs_ext/deep.h")
    assert build_project(tmp_path) == {"one.o", "first.o", "first", "second"}
    touch(tmp_path, "cimfs_ext/other.h")
    assert build_project(tmp_path) == {"two.o", "second.o", "first", "second"}
    touch(tmp_path, "cimfs_ext/second.c")
    assert build_project(tmp_path) == {"second.o", "second"}


@pytest.mark.skipif(shutil.which("ar") is None, reason="no ar to list an archive with")
def test_removed_source_leaves_the_library(tmp_path: Path) -> None:
    write_project(tmp_path)
    build_project(tmp_path)
    [archive] = tmp_path.rglob("libsmall.a")
    listed = ["ar", "t", str(archive)]
    assert set(subprocess.check_output(listed, encoding="utf-8").split()) == {"one.o", "two.o"}
    setup = tmp_path / "setup.py"
    setup.write_text(setup.read_text("utf-8").replace('"cimfs_ext/one.c", ', ""), encoding="utf-8")
    build_project(tmp_path)
    assert subprocess.check_output(listed, encoding="utf-8").split() == ["two.o"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree; objects that the tree already has are used."""
    if WINE:
        pytest.skip("no C compiler")
    output = tmp_path_factory.mktemp("wheel")
    objects = next((ROOT / "build").glob("temp.*"), output / "objects")
    into = ("--build-base", str(output / "build"), "--build-temp", str(objects))
    run_setup(
        ROOT,
        *("egg_info", "--egg-base", str(output), "build", *into),
        *("bdist_wheel", "--bdist-dir", str(output / "staged"), "--dist-dir", str(output)),
    )
    return next(output.glob("*.whl"))


def test_wheel_holds_what_runs_and_no_sources(wheel: Path) -> None:
    assert wheel.stat().st_size < 3_000_000
    names = zipfile.ZipFile(wheel).namelist()
    suffixes = {Path(name).suffix for name in names if not name.partition("/")[0].endswith(".dist-info")}
    assert suffixes <= {".py", ".pyi", ".typed", ".so", ".pyd"}
    packages = {path.relative_to(ROOT / "python").as_posix() for path in (ROOT / "python").rglob("*.py")}
    assert packages | {"cimlayer/py.typed", "cimfs_ext/py.typed"} <= set(names)
    modules = {name.partition(".")[0] for name in names if name.endswith((".so", ".pyd"))}
    assert {f"cimfs_ext/{source.stem}" for source in (ROOT / "cimfs_ext").glob("*.pyx")} - modules <= (
        set() if sys.platform == "win32" else {"cimfs_ext/winfiles"}
    )


@pytest.mark.parametrize(
    "command",
    [
        ["check-wheel-contents", "--config", str(ROOT / "pyproject.toml")],
        ["twine", "check", "--strict"],
        pytest.param(
            ["auditwheel", "show"], marks=pytest.mark.skipif(sys.platform != "linux", reason="auditwheel is for Linux")
        ),
    ],
    ids=lambda command: command[0],
)
def test_wheel_passes(command: list[str], wheel: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([*command, str(wheel)], check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


# glibc 2.33 and 2.34 gave these new versions; a build with 2.28 gets what they replace.
THREADS = {"pthread_create", "pthread_join", "pthread_sigmask"}
MOVED_WITHIN_GLIBC = {"fstat64", "fstatat64", "dlclose", "dlopen", "dlsym", *THREADS}


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("objdump") is None, reason="needs Linux and objdump")
def test_wheel_needs_nothing_that_glibc_2_28_does_not_have(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    modules = [str(module) for module in tmp_path.rglob("*.so")]
    symbols = subprocess.check_output(["objdump", "-T", *modules], encoding="utf-8")
    needed = re.findall(r"\*UND\*.*\bGLIBC_2\.(\d+)[\d.]*\)? +(\w+)$", symbols, re.MULTILINE)
    assert "memcpy" in {name for _, name in needed}
    assert {name for version, name in needed if int(version) > 28} <= MOVED_WITHIN_GLIBC


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_source_distribution_holds_what_git_has(tmp_path: Path) -> None:
    run_setup(ROOT, "egg_info", "--egg-base", str(tmp_path), "sdist", "--dist-dir", str(tmp_path))
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, encoding="utf-8").split("\n")
    kept = {name for name in listed if (ROOT / name).is_file() and not name.startswith((".github/", ".git"))}
    assert kept - packed == set()
    assert not [name for name in packed if name.endswith((".so", ".pyd", ".o", ".pyc"))]
