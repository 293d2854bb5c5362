"""Loaded libraries: libcimfs as a shared library."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cimfs_ext import volumes
from cimfs_ext.errors import (
    PathNotFoundError,
    UnsupportedCallError,
)
from cimfs_ext.image import ImageWriter
from cimfs_ext.implementation import Implementation, load
from support.libraries import ROOT, c_compiler, install_libcimfs
from support.systemlibraries import (
    FIRST_RELEASE,
    NEWER,
    VOLUME,
    directory,  # noqa: F401  fixtures
)


@pytest.fixture(scope="module")
def libcimfs(directory: Path) -> Path:
    return install_libcimfs(directory / "libcimfs")


def test_shared_library_exports_exactly_the_functions(libcimfs: Path) -> None:
    if shutil.which("nm") is None or sys.platform != "linux":
        pytest.skip("lists ELF symbols with nm")
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=posix", libcimfs / "lib/libcimfs.so"],
        check=True,
        capture_output=True,
        encoding="utf-8",
    ).stdout
    assert {line.split()[0] for line in listing.splitlines()} == FIRST_RELEASE | NEWER | {"CimCreateImageWith"}


def test_header_declares_exactly_the_exported_functions(libcimfs: Path) -> None:
    header = (libcimfs / "include/libcimfs/libcimfs.h").read_text("utf-8")
    declared = set(re.findall(r"CIMFS_EXPORT \w+ (?:CIMFS_CALL )?(\w+)\(", header))
    assert declared == FIRST_RELEASE | NEWER | {"CimCreateImageWith"}


def test_program_builds_with_the_pkg_config_file_and_writes_an_image(libcimfs: Path, tmp_path: Path) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("no pkg-config")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(libcimfs / "lib/pkgconfig")}
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libcimfs"],
        check=True,
        capture_output=True,
        encoding="utf-8",
        env=environment,
    ).stdout.split()
    program = tmp_path / "program.c"
    program.write_text(
        """
        #include <libcimfs.h>
        int main(void)
        {
            static const cimfs_wchar here[] = {'.', 0}, name[] = {'a', '.', 'c', 'i', 'm', 0};
            cimfs_image image;
            if (CimCreateImage(here, NULL, name, &image) < 0 || CimCommitImage(image) < 0)
                return 1;
            if (CimCloseImage(image) != CIMFS_OK)
                return 2;
            return CimTombstoneFile(NULL, name) != CIMFS_E_NOTIMPL;
        }
        """,
        encoding="utf-8",
    )
    subprocess.run([c_compiler(), program, "-o", tmp_path / "program", *flags], check=True)
    environment["LD_LIBRARY_PATH"] = environment["DYLD_LIBRARY_PATH"] = str(libcimfs / "lib")
    subprocess.run([tmp_path / "program"], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "a.cim").is_file()


def test_shared_library_takes_flags_that_its_images_satisfy(libcimfs: Path, tmp_path: Path) -> None:
    library = load(str(next((libcimfs / "lib").glob("libcimfs.*[!c]"))))
    with ImageWriter(tmp_path, None, "a.cim", flags=3, implementation=library) as image:
        image.commit()
    assert (tmp_path / "a.cim").is_file()
    for flag in (4, 8, 0x10, 0x20, 0x40, 0x80000000):
        with pytest.raises(UnsupportedCallError):
            ImageWriter(tmp_path, None, "b.cim", flags=flag | 1, implementation=library)


def test_newer_calls_of_the_shared_library_are_not_implemented(libcimfs: Path, tmp_path: Path) -> None:
    library = load(str(next((libcimfs / "lib").glob("libcimfs.*[!c]"))))
    with pytest.raises(UnsupportedCallError):
        ImageWriter(tmp_path, None, "a.cim", flags=8, implementation=library)
    with pytest.raises(UnsupportedCallError):
        volumes.mount(str(tmp_path), "a.cim", VOLUME, implementation=library)
    with pytest.raises(UnsupportedCallError):
        volumes.verification_information(str(tmp_path), implementation=library)
    with ImageWriter(tmp_path, None, "a.cim", implementation=library) as image, pytest.raises(PathNotFoundError):
        image.delete_path("nothing")


@pytest.mark.parametrize(
    "modules",
    [
        ("cimfs_ext/test_image_*.py",),
        ("test_corpus.py", "layer/test_writer*.py", "layer/test_destroy.py"),
        ("oci/test_import_layer*.py",),
    ],
)
def test_suite_passes_with_the_loaded_library(libcimfs: Path, tmp_path: Path, modules: tuple[str, ...]) -> None:
    library = next((libcimfs / "lib").glob("libcimfs.*[!c]"))
    files = [str(path) for module in modules for path in (ROOT / "tests").glob(module)]
    environment = {**os.environ, "CIMLAYER_IMPLEMENTATION": "system", "CIMLAYER_CIMFS_LIBRARY": str(library)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        check=False,
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"\d+ (passed|skipped)", done.stdout)


def test_implementations_are_chosen_or_loaded() -> None:
    for make in (Implementation, lambda: Implementation.__new__(Implementation)):
        with pytest.raises(TypeError, match=r"choose\(\) or load\(\)"):
            make()
