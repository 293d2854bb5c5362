"""The C library under AddressSanitizer and UBSan: scenarios, failing file operations, hostile images."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from support import cimoracle
from support.cimbytes import DATA, Builder, link_table, stream
from support.images import DIRECTORY, add, writer

ROOT = Path(__file__).parents[1]
HARNESS = ROOT / "tests" / "c"
RUNS = int(os.environ.get("CIMLAYER_FUZZ_RUNS", "3000"))
UPCASE_SIZE = 131072
FLAGS = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Werror",
    "-fno-sanitize-recover=all",
    "-Icimfs_ext",
    "-Itests/c",
]

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")


def compile_harness(target: Path, sanitizers: str, source: str) -> Path:
    library = sorted((ROOT / "cimfs_ext" / "libcimfs").glob("*.c"))
    sources = [HARNESS / source, HARNESS / "memory_io.c", *library]
    command = ["clang", *FLAGS, f"-fsanitize={sanitizers}", *map(str, sources), "-o", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "libclang_rt" in done.stderr and "undefined" not in done.stderr:
        pytest.skip("clang has no sanitizer runtime here")
    assert done.returncode == 0, done.stderr
    return target


def run(command: list[str], directory: Path) -> str:
    done = subprocess.run(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=600
    )
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, output[-10_000:]
    return output


def fuzz_input(path: Path) -> bytes:
    """An image in the form that fuzz_reader.c takes apart."""
    image = cimoracle.Image(path.parent, path.name)
    (upcase,) = struct.unpack_from("<Q", image.at(image.header.filesystem_offset, 8, "filesystem object"))
    names = image.header.region_names
    files = [path.read_bytes()]
    files += [
        (path.parent / f"{kind}_{name}").read_bytes() for kind in ("region", "objectid") for name in names
    ]
    assert upcase >> 48 == 0
    files[1] = files[1][:upcase] + files[1][upcase + UPCASE_SIZE :]
    sizes = b"".join(struct.pack("<I", len(data)) for data in files)
    return struct.pack("<BI", len(files), upcase) + sizes + b"".join(files)


def write_seeds(directory: Path, corpus: Path) -> None:
    with writer(directory, None, "p.cim") as image:
        add(image, "d", attributes=DIRECTORY)
        for name in "abc":
            add(image, f"d\\{name}", name.encode() * 50)
        add(
            image,
            "full",
            b"content",
            attributes=0x27,
            security_descriptor=b"\1\0\4\x80" + bytes(17),
            reparse_data=b"\x0c\0\0\xa0\4\0\0\0abcd",
            extended_attributes=b"\0\0\0\0\0\1\2\0E\0ab",
        )
        image.create_alternate_stream("full:s", 6)
        image.write(b"stream")
        image.create_file("sparse", size=100_000)
        image.commit()
    with writer(directory, "p.cim", "f.cim") as image:
        add(image, "d\\b", b"changed")
        add(image, "e", attributes=DIRECTORY)
        image.delete_path("d\\a")
        image.create_hard_link("e\\link", "full")
        image.commit()
    for name in ("p.cim", "f.cim"):
        (corpus / name).write_bytes(fuzz_input(directory / name))
    for record_size in (88, 96, 120):
        builder = Builder(version=3, record_size=record_size)
        streams = builder.put(link_table([("s", builder.data(b"stream")), ("t", stream(0, 99, DATA, True))]))
        children = {
            "a": builder.add(builder.pe_image(b"MZ" * 500, 900, [(100, 50), (200, 100), (800, 90)])),
            "b": builder.add(builder.data(b"text"), streams=streams),
        }
        inner = builder.directory(children)
        path = builder.save(directory / f"{record_size}.cim", builder.directory({"d": inner, "full": 1}))
        (corpus / path.name).write_bytes(fuzz_input(path))


def test_scenarios_and_failing_file_operations(tmp_path: Path) -> None:
    program = compile_harness(tmp_path / "test_libcimfs", "address,undefined", "test_libcimfs.c")
    assert run([str(program)], tmp_path).endswith("\n0 failures\n")


def test_hostile_images(tmp_path: Path) -> None:
    program = compile_harness(tmp_path / "fuzz_reader", "fuzzer,address,undefined", "fuzz_reader.c")
    corpus, images = tmp_path / "corpus", tmp_path / "images"
    corpus.mkdir()
    images.mkdir()
    write_seeds(images, corpus)
    for seed in sorted(corpus.iterdir()):
        run([str(program), str(seed)], tmp_path)
    found = tmp_path / "found"
    found.mkdir()
    limits = [
        f"-runs={RUNS}",
        "-seed=1",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-max_len=20000",
        "-print_final_stats=1",
    ]
    output = run([str(program), *limits, str(found), str(corpus)], tmp_path)
    assert "stat::number_of_executed_units" in output
