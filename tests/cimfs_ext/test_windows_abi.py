"""libcimfs and the loader on a Windows ABI: cross-compiled, and run under wine.

What wine cannot show (NTFS, the real cimfs.dll) is listed in docs/windows.md.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from support.images import DIRECTORY, NULL_DACL, TIME, assert_sound, snapshot
from support.libraries import MINGW, ROOT, build_recording, install_libcimfs, read_record, wide
from support.systemlibraries import FIRST_RELEASE, NEWER

WINE = shutil.which("wine64") or shutil.which("wine")

pytestmark = [
    pytest.mark.skipif(shutil.which(MINGW) is None, reason=f"no {MINGW} (gcc-mingw-w64-x86-64)"),
    pytest.mark.skipif(WINE is None, reason="no wine (wine64)"),
]

VOLUME = "01234567-89ab-cdef-0102-030405060708"


class WindowsMachine:
    """A wine prefix, the programs in it, and its system directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "WINEPREFIX": str(root / "prefix"), "WINEDEBUG": "-all", "DISPLAY": ""}
        self._boot()
        self.system_directory = root / "prefix/drive_c/windows/system32"
        self.program = self._compiled("test_windows_abi.c", ROOT / "cimfs_ext/system.c")
        self.hcsshim = self._compiled("hcsshim_client.c")
        self.libcimfs = install_libcimfs(root / "libcimfs", MINGW) / "bin/cimfs.dll"
        self.recording = build_recording(root / "recording.dll", compiler=MINGW)

    def _compiled(self, source: str, *more: Path) -> Path:
        """A program of tests/c."""
        program = self.root / Path(source).with_suffix(".exe")
        flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-municode"]
        command = [MINGW, *flags, f"-I{ROOT / 'cimfs_ext'}", ROOT / "tests/c" / source, *more, "-o", program]
        subprocess.run(command, check=True)
        return program

    def _boot(self) -> None:
        """Make the prefix: a machine that is busy can have wine give up on the first one (status 53)."""
        boot = [str(WINE), "wineboot", "-i"]
        for _ in range(3):
            done = subprocess.run(boot, check=False, capture_output=True, env=self.environment, timeout=300)
            if done.returncode == 0:
                return
            self.stop()
            shutil.rmtree(self.root / "prefix", ignore_errors=True)
        raise RuntimeError(f"wine makes no prefix: {done.stderr.decode(errors='replace')}")

    def run(
        self, *arguments: str, program: Path | None = None, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(WINE), str(program or self.program), *arguments],
            check=False,
            capture_output=True,
            encoding="utf-8",
            cwd=cwd or self.root,
            env={**self.environment, **environment},
            timeout=120,
        )

    def windows_path(self, path: Path) -> str:
        return "Z:" + str(path).replace("/", "\\")

    def stop(self) -> None:
        """End the prefix's server, so that nothing runs on."""
        server = shutil.which("wineserver") or "/usr/lib/wine/wineserver64"
        subprocess.run([server, "-k"], check=False, env=self.environment)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowsMachine]:
    made = WindowsMachine(tmp_path_factory.mktemp("windows"))
    yield made
    made.stop()


@pytest.fixture
def installed(machine: WindowsMachine) -> Iterator[Callable[[str, Path], None]]:
    """Puts a library into the system directory under that name, until the test ends."""
    names: list[str] = []

    def install(name: str, library: Path) -> None:
        shutil.copy(library, machine.system_directory / name)
        names.append(name)

    yield install
    for name in names:
        (machine.system_directory / name).unlink()


def write_images(directory: Path) -> None:
    """What the C program writes, with the portable library of this system."""
    state, noise = 1, bytearray()
    for _ in range(3 << 20):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        noise.append(state >> 24)

    def add(image: ImageWriter, path: str, data: bytes, attributes: int = 0) -> None:
        image.create_file(
            path,
            attributes=attributes,
            size=len(data),
            creation_time=TIME,
            last_write_time=TIME + 1,
            change_time=TIME + 2,
            last_access_time=TIME + 3,
            security_descriptor=NULL_DACL,
        )
        image.write(data)

    def opened(existing: str | None, new: str | None) -> ImageWriter:
        return ImageWriter(directory, existing, new, time=TIME, seed=b"seed", implementation="portable")

    with opened(None, "a.cim") as image:
        add(image, "Folder", b"", DIRECTORY)
        add(image, "Folder\\файл.txt", b"small", 0x20)
        add(image, "noise", bytes(noise))
        add(image, "same", bytes(noise))
        image.create_alternate_stream("noise:stream", 4)
        image.write(b"data")
        image.create_hard_link("folder\\link", "NOISE")
        image.commit()
    with opened("a.cim", "b.cim") as image:
        add(image, "Folder\\fork", bytes(noise[1:70001]))
        image.delete_path("same")
        image.commit()
    with opened("b.cim", None) as image:
        add(image, "extension", bytes(noise[2:70002]))
        image.commit()


def test_nothing_is_loaded_where_the_system_has_no_library(machine: WindowsMachine) -> None:
    assert machine.run("load").stdout == "80070002 writer=0 library=0 mount=0 close=0\n"


def test_library_beside_the_program_is_not_loaded(machine: WindowsMachine) -> None:
    planted = machine.program.with_name("cimfs.dll")
    shutil.copy(machine.recording, planted)
    try:
        assert machine.run("load").stdout == "80070002 writer=0 library=0 mount=0 close=0\n"
    finally:
        planted.unlink()


def test_writer_library_may_lie_beside_the_program_but_in_no_other_directory(
    machine: WindowsMachine, installed: Callable[[str, Path], None], tmp_path: Path
) -> None:
    installed("cimfs.dll", machine.recording)
    shutil.copy(machine.libcimfs, tmp_path / "cimwriter.dll")
    path = {"WINEPATH": machine.windows_path(tmp_path)}
    assert "writer=0" in machine.run("load", cwd=tmp_path, **path).stdout
    beside = machine.program.with_name("cimwriter.dll")
    shutil.copy(machine.libcimfs, beside)
    try:
        assert "writer=1 library=1" in machine.run("load").stdout
    finally:
        beside.unlink()


def test_first_release_has_no_answer_from_close(
    machine: WindowsMachine, installed: Callable[[str, Path], None]
) -> None:
    first = build_recording(machine.root / "first.dll", "-DFIRST_RELEASE", compiler=MINGW)
    installed("cimfs.dll", first)
    assert machine.run("load").stdout == "00000000 writer=0 library=1 mount=1 close=0\n"


def test_library_without_a_function_of_the_first_release_is_refused(
    machine: WindowsMachine, installed: Callable[[str, Path], None]
) -> None:
    installed("cimfs.dll", build_recording(machine.root / "without.dll", "-DWITHOUT_DELETE_PATH", compiler=MINGW))
    assert machine.run("load").stdout.startswith("80004001 ")


def test_every_call_arrives_as_it_was_made(
    machine: WindowsMachine, installed: Callable[[str, Path], None], tmp_path: Path
) -> None:
    installed("cimfs.dll", machine.recording)
    record = tmp_path / "record.json"
    done = machine.run("calls", RECORDING_CIMFS=machine.windows_path(record))
    assert (done.returncode, done.stdout) == (0, "")
    calls = {str(call["call"]): call for call in read_record(record)}
    assert len(calls) == 21
    assert calls["CimCreateImage"]["path"] == wide("C:\\где")
    assert calls["CimCreateImage"]["existing"] is None
    assert calls["CimCreateImage2"]["flags"] == 0x58
    assert calls["CimCreateFile"] == {
        "call": "CimCreateFile",
        "image": "image",
        "path": wide("x"),
        "attributes": 0x2427,
        "size": 0x1_2345_6789,
        "creation": 0x0111_1111_2222_2222,
        "last_write": 0x0333_3333_4444_4444,
        "change": 0xFFFF_FFFF_FFFF_FFFF,
        "last_access": 0x0777_7777_0888_8888,
        "descriptor": NULL_DACL.hex(),
        "reparse": "010203",
        "ea": "0405",
    }
    assert calls["CimWriteStream"] == {"call": "CimWriteStream", "stream": "stream", "data": b"data".hex()}
    assert calls["CimCreateAlternateStream"]["size"] == 1 << 40
    assert calls["CimMergeMountVerifiedImage"] == {
        "call": "CimMergeMountVerifiedImage",
        "count": 2,
        "directory0": wide("C:\\d"),
        "name0": wide("m.cim"),
        "directory1": wide("C:\\e"),
        "name1": wide("s.cim"),
        "flags": 0x10,
        "volume": VOLUME,
        "hash": (bytes([9, 8, 7]) + bytes(29)).hex(),
    }
    assert calls["CimMountVerifiedImage"]["hash"] == calls["CimMergeMountVerifiedImage"]["hash"]
    assert calls["CimDismountImage"]["volume"] == VOLUME


def test_writer_library_is_preferred_for_the_writing_half(
    machine: WindowsMachine, installed: Callable[[str, Path], None], tmp_path: Path
) -> None:
    installed("cimfs.dll", machine.recording)
    installed("cimwriter.dll", machine.libcimfs)
    assert machine.run("load").stdout == "00000000 writer=1 library=1 mount=1 close=1\n"
    record = tmp_path / "record.json"
    done = machine.run("lock", machine.windows_path(tmp_path), RECORDING_CIMFS=machine.windows_path(record))
    assert (done.returncode, done.stdout) == (0, "")
    assert not record.exists()  # cimfs.dll was not asked


@pytest.mark.parametrize("spelling", ["backslashes", "slashes", "prefix", "long"])
def test_same_bytes_as_on_this_system(
    machine: WindowsMachine, installed: Callable[[str, Path], None], tmp_path: Path, spelling: str
) -> None:
    installed("cimfs.dll", machine.libcimfs)
    here, there = tmp_path / "here", tmp_path / "there"
    if spelling == "long":
        there = there / ("d" * 150) / ("e" * 150)
    here.mkdir()
    there.mkdir(parents=True)
    path = {
        "backslashes": machine.windows_path(there),
        "slashes": f"z:{there}/",
        "prefix": "\\\\?\\" + machine.windows_path(there),
        "long": machine.windows_path(there),
    }[spelling]
    done = machine.run("image", path)
    assert (done.returncode, done.stdout) == (0, "")
    write_images(here)
    assert snapshot(there) == snapshot(here)
    for name in ("a.cim", "b.cim"):
        assert_sound(there / name)
    with ImageReader(there / "b.cim") as image:
        assert image.read("Folder\\файл.txt") == b"small"


def test_second_writer_is_refused_and_the_lock_leaves_no_file(
    machine: WindowsMachine, installed: Callable[[str, Path], None], tmp_path: Path
) -> None:
    installed("cimfs.dll", machine.libcimfs)
    done = machine.run("lock", machine.windows_path(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    assert os.listdir(tmp_path) == []


# ---- what hcsshim does with the library ----


@pytest.mark.parametrize("name", ["cimfs.dll", "cimwriter.dll"])
def test_layers_that_hcsshim_writes_are_what_it_meant(
    machine: WindowsMachine, installed: Callable[[str, Path], None], tmp_path: Path, name: str
) -> None:
    installed(name, machine.libcimfs)
    which = machine.run("which", ".", program=machine.hcsshim)
    assert which.stdout.rstrip().lower() == rf"c:\windows\system32\{name}"
    done = machine.run("layers", machine.windows_path(tmp_path), program=machine.hcsshim)
    assert (done.returncode, done.stdout) == (0, "")
    for image_name in ("test.cim", "base.cim", "child.cim"):
        assert_sound(tmp_path / image_name)
    with ImageReader(tmp_path / "test.cim") as image:
        assert {path: None if entry.is_directory else image.read(entry) for path, entry in image.walk()} == {
            "foo": None,
            "foo\\bar.txt": b"bar test data",
            "foobar.txt": b"foobar test data",
        }
        entry = image.stat("foobar.txt")
        times = (entry.creation_time, entry.last_write_time, entry.change_time, entry.last_access_time)
        assert times == (TIME, TIME + 1, TIME + 2, TIME + 3)
        assert image.security_descriptor(entry) == NULL_DACL
    with ImageReader(tmp_path / "base.cim") as image:
        assert sorted(path for path, _ in image.walk()) == [
            "Files", "Files\\gone", "Files\\large", "Files\\link", "Hives", "Hives\\SYSTEM_BASE",
        ]  # fmt: skip
        assert image.stat("Files\\large").file_id == image.stat("Files\\link").file_id
        assert image.read("Files\\large", "zone") == b"[ZoneTransfer]"
        assert len(image.read("Files\\large")) == 100001
    with ImageReader(tmp_path / "child.cim") as image:
        assert [entry.name for entry in image.listdir("Files")] == ["large", "link", "new"]
        assert image.read("Hives\\SYSTEM_BASE") == b"regf"


def test_hcsshim_gets_the_errors_of_the_systems_library(
    machine: WindowsMachine, installed: Callable[[str, Path], None], tmp_path: Path
) -> None:
    """Windows' codes, as syscall.Errno where they are those of the system: see docs/format.md and cimfs.h."""
    installed("cimfs.dll", machine.libcimfs)
    done = machine.run("errors", machine.windows_path(tmp_path), program=machine.hcsshim)
    assert done.stdout.splitlines() == [
        "no directory: 3",
        "no parent: 2",
        "no names: 87",
        "second writer: 32",
        "link to a directory: 5",
        "link to nothing: 3",
        "malformed path: 87",
        "open stream: 32",
        "too much: 38",
        "tombstone: 0x80004001",
        "block image: 0x80004001",
    ]
    assert done.returncode == 0
    assert os.listdir(tmp_path) == []


def test_library_exports_what_the_systems_does(machine: WindowsMachine) -> None:
    """And CimCreateImageWith, which libcimfs.h declares."""
    dump = subprocess.run(
        ["x86_64-w64-mingw32-objdump", "-p", machine.libcimfs], check=True, capture_output=True, encoding="utf-8"
    )
    table = dump.stdout.partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0]
    exported = {line.split()[-1] for line in table.splitlines() if "Cim" in line}
    assert exported == FIRST_RELEASE | NEWER | {"CimCreateImageWith"}
