"""The tar reader and the importer under libFuzzer, with the address and undefined behaviour sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.tars import DIRECTORY, GNU_MAGIC, V7_FILE, V7_MAGIC, TarBuilder, base256, windows_pax

ROOT = Path(__file__).parents[1]
RUNS = 5_000
SANITIZE = "-fsanitize=fuzzer,address,undefined"
DESCRIPTOR = bytes([1, 0, 4, 0x80]) + bytes(16)


def windows_layer() -> bytes:
    tar = TarBuilder()
    tar.directory("Files", pax=windows_pax(0x10, sd=DESCRIPTOR, creation=132 * 10**15))
    tar.file("Files/a.txt", b"content", pax=windows_pax(0x20, sddl="O:BAG:SY", eas={"A": b"1", "B": b"22"}))
    tar.stream("Files/a.txt", "zone:$DATA", b"stream")
    tar.symlink("Files/link", "../Files/a.txt", pax=windows_pax(0x420))
    tar.symlink("Files/mount", "C:/x", pax=windows_pax(0x410, mountpoint=True))
    tar.hardlink("Files/b.txt", "Files/a.txt")
    tar.file("Hives/System_Delta", b"regf")
    tar.hardlink("Files/c", "Hives/System_Delta")
    tar.whiteout("Files/old")
    tar.opaque("Files")
    return tar.finish()


def linux_layer() -> bytes:
    tar = TarBuilder()
    tar.file("deep/down/file", b"x" * 600, mtime=1_700_000_000)
    tar.gnu_long_name("long/" + "n" * 120)
    tar.file("short", b"long", magic=GNU_MAGIC)
    tar.pax_global({"mtime": "1.5", "MSWINDOWS.xattr.G": "QQ=="})
    tar.pax_global({"atime": "-2.25"})
    tar.file("old/", kind=V7_FILE, magic=V7_MAGIC)
    tar.file("prefixed", b"p", prefix=b"some/where")
    tar.file("big", mtime=base256(-5, 12), size=base256(0, 12))
    tar.node("dir/", DIRECTORY)
    return tar.finish(end=b"")


def at_the_limit_of_paths() -> bytes:
    tar = TarBuilder()
    tar.pax({"path": "d/" * 16000 + "e" * 1030 + "/f"})
    tar.file("x")
    return tar.finish()


def seeds() -> list[bytes]:
    """Inputs as fuzz_tar.c takes them: cuts, tar."""
    return [
        bytes([how]) + tar
        for how, tar in ((1, windows_layer()), (0xF2, windows_layer()), (0xF5, linux_layer()), (60, linux_layer()))
    ]


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("clang is not installed")
    directory = tmp_path_factory.mktemp("fuzzer")
    probe = directory / "probe.c"
    probe.write_text(
        "#include <stddef.h>\n#include <stdint.h>\n"
        "int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return data == NULL && size; }\n"
    )
    if subprocess.run([clang, SANITIZE, probe, "-o", directory / "probe"], capture_output=True, check=False).returncode:
        pytest.skip("this clang comes without libFuzzer")
    program = directory / "fuzz_tar"
    sources = [
        *(ROOT / "cimfs_ext" / "libcimfs").glob("*.c"),
        *(
            ROOT / "cimfs_ext" / "liblayer" / f"{name}.c"
            for name in ("base64", "ea", "importer", "pathset", "reparse", "tar")
        ),
    ]
    subprocess.run(
        [
            *(clang, "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"),
            *("-D_GNU_SOURCE", SANITIZE, "-fno-sanitize-recover=all", "-I", ROOT / "cimfs_ext"),
            *(ROOT / "tests" / "c" / "fuzz_tar.c", *sources, "-o", program),
        ],
        check=True,
    )
    return program


def run(fuzzer: Path, tmp_path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [fuzzer, f"-artifact_prefix={tmp_path}/", *arguments],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip


def test_importer_holds_under_fuzzing(fuzzer: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index, seed in enumerate(seeds()):
        (corpus / str(index)).write_bytes(seed)
    done = run(fuzzer, tmp_path, f"-runs={RUNS}", "-seed=1", "-max_len=24576", corpus)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr


def test_path_that_fills_the_buffer_exactly_is_held(fuzzer: Path, tmp_path: Path) -> None:
    tar = tmp_path / "tar"
    tar.write_bytes(b"\0" + at_the_limit_of_paths())
    done = run(fuzzer, tmp_path, tar)
    assert done.returncode == 0, done.stderr[-4000:]
