"""The check that only Windows can make: images of both implementations, mounted by the system and compared.

Needs a Windows with CimFS for container layers, and administrator's rights. With CIMLAYER_REQUIRE_MOUNT set nothing is
skipped: a job that is there to mount cannot pass without having done so.
"""

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from cimfs_ext.reader import ImageReader
from cimlayer.image.features import WindowsSystem, is_cimfs_supported
from cimlayer.image.mount import mount_image
from cimlayer.layer.destroy import destroy_cim_layer
from cimlayer.layer.paths import get_cim_path_from_layer
from cimlayer.oci.import_layer import import_layer
from support import ROOT

COMPARED_ATTRIBUTES = 0x1 | 0x2 | 0x4 | 0x10 | 0x20 | 0x400  # read-only to archive, and reparse points
UNIX_EPOCH = 116444736000000000  # as a FILETIME
REQUIRED = "CIMLAYER_REQUIRE_MOUNT" in os.environ


def _may_mount() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    return is_cimfs_supported(WindowsSystem.current()) and bool(ctypes.windll.shell32.IsUserAnAdmin())


pytestmark = pytest.mark.skipif(
    not REQUIRED and not _may_mount(), reason="mounting needs Windows with CimFS and administrator's rights"
)


@pytest.mark.parametrize("implementation", ["system", "portable"])
def test_mounted_layer_has_the_tree_that_the_reader_sees(tmp_path: Path, implementation: str) -> None:
    base, child = tmp_path / "1", tmp_path / "2"
    import_layer(ROOT / "examples/sample-layer.tar", base, implementation=implementation)
    import_layer(ROOT / "examples/sample-child.tar", child, [base], implementation=implementation)
    for layer in (base, child):
        path = get_cim_path_from_layer(layer)
        with mount_image(path, implementation="system") as volume:
            assert mounted_tree(volume) == image_tree(path)
    destroy_cim_layer(child)
    destroy_cim_layer(base)


def test_fork_of_a_system_image_by_the_portable_writer_is_mounted(tmp_path: Path) -> None:
    base, child = tmp_path / "1", tmp_path / "2"
    import_layer(ROOT / "examples/sample-layer.tar", base, implementation="system")
    import_layer(ROOT / "examples/sample-child.tar", child, [base], implementation="portable")
    path = get_cim_path_from_layer(child)
    with mount_image(path, implementation="system") as volume:
        assert mounted_tree(volume) == image_tree(path)


def test_portable_writer_and_reader_agree_on_this_system(tmp_path: Path) -> None:
    import_layer(ROOT / "examples/sample-layer.tar", tmp_path / "1", implementation="portable")
    shutil.copytree(tmp_path / "cim-layers", tmp_path / "copy")
    with ImageReader(tmp_path / "copy" / "1.cim") as image:
        assert image.verify().ok


Node = tuple[int, int, int, bytes, dict[str, bytes]]  # attributes, size, last write time, data, streams


def image_tree(path: Path) -> dict[str, Node]:
    with ImageReader(path) as image:
        return {
            name: (
                entry.attributes & COMPARED_ATTRIBUTES,
                entry.size,
                entry.last_write_time,
                b"" if entry.is_directory or entry.is_reparse_point else image.read(entry),
                {stream.name: image.read(entry, stream.name) for stream in image.streams(entry)},
            )
            for name, entry in image.walk()
            if name
        }


def mounted_tree(volume: str) -> dict[str, Node]:
    found: dict[str, Node] = {}
    streams = {name: names for name, names in stream_names(volume).items() if names}
    for directory, folders, files in os.walk(volume):
        for name in (*folders, *files):
            path = str(Path(directory) / name)
            status = os.lstat(path)
            attributes = status.st_file_attributes  # type: ignore[attr-defined]
            plain = stat.S_ISREG(status.st_mode) and not attributes & 0x400
            found[path.removeprefix(volume)] = (
                attributes & COMPARED_ATTRIBUTES,
                status.st_size if plain else 0,
                status.st_mtime_ns // 100 + UNIX_EPOCH,
                Path(path).read_bytes() if plain else b"",
                {stream: Path(f"{path}:{stream}").read_bytes() for stream in streams.get(path, ())},
            )
    return found


def stream_names(volume: str) -> dict[str, list[str]]:
    """The alternate streams of every file and directory, asked of the system (FindFirstStreamW)."""
    import ctypes
    from ctypes import wintypes

    class FindStreamData(ctypes.Structure):
        _fields_ = (("size", ctypes.c_longlong), ("name", wintypes.WCHAR * 296))

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    kernel.FindFirstStreamW.restype = wintypes.HANDLE
    kernel.FindFirstStreamW.argtypes = (wintypes.LPCWSTR, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)
    kernel.FindNextStreamW.argtypes = (wintypes.HANDLE, ctypes.c_void_p)
    kernel.FindClose.argtypes = (wintypes.HANDLE,)
    result: dict[str, list[str]] = {}
    for directory, folders, files in os.walk(volume):
        for name in (*folders, *files):
            path = str(Path(directory) / name)
            data = FindStreamData()
            handle = kernel.FindFirstStreamW(path, 0, ctypes.byref(data), 0)
            if handle == wintypes.HANDLE(-1).value:
                continue
            names = [data.name]
            while kernel.FindNextStreamW(handle, ctypes.byref(data)):
                names.append(data.name)
            kernel.FindClose(handle)
            result[path] = [text.split(":")[1] for text in names if text.split(":")[1]]
    return result
