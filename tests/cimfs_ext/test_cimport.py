"""Another Cython package can use the engine: the .pxd files and the headers they name are beside the modules."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import cimfs_ext
from cimfs_ext.image import ImageWriter

SOURCE = """
from cimfs_ext.cimfs cimport cimfs_hresult
from cimfs_ext.image cimport ImageWriter, wide
from cimfs_ext.implementation cimport Implementation, choose

def delete(ImageWriter image, str path):
    cdef bytes text = wide(path)
    return image.api.delete_path(image.image, <const unsigned short *><const char *>text) & 0xFFFFFFFF

def name_of_default():
    cdef Implementation chosen = choose("portable")
    return chosen.api.name.decode()
"""

SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup

extension = Extension("other", ["other.pyx"], include_dirs=[{headers!r}])
setup(ext_modules=cythonize([extension], include_path=[{parent!r}]))
"""


def test_other_package_cimports_the_engine(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    headers = Path(str(cimfs_ext.__file__)).parent
    (tmp_path / "other.pyx").write_text(SOURCE)
    (tmp_path / "setup.py").write_text(SETUP.format(headers=str(headers), parent=str(headers.parent)))
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    found = importlib.util.spec_from_file_location("other", next(tmp_path.glob("other.*[!xc]")))
    assert found and found.loader
    other = importlib.util.module_from_spec(found)
    found.loader.exec_module(other)
    assert other.name_of_default() == "portable"
    with ImageWriter(tmp_path, None, "a.cim", implementation="portable") as image:
        assert other.delete(image, "missing") == 0x80070003
