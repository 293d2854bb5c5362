"""Makes the tars that the benchmarks import: `python -m benchmarks.inputs [A B C D E]`, from the root.

Each is a Windows base layer, made only when it is missing, the same bytes every time, with a `.gz` beside it:

A  30,000 real files out of public Windows wheels, about 1 GB: large DLLs and many small files
B  100,000 small files, about 500 MB
C  200,000 files of about 1 KiB in 4,000 directories
D  one directory with 100,000 entries
E  1,000,000 files of 100 bytes in 10,000 directories
"""

import argparse
import io
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copyfileobj

from isal import igzip

from examples.descriptors import (
    ADMINISTRATORS,
    FULL_ACCESS,
    INHERIT_TO_ALL,
    READ_AND_EXECUTE,
    SYSTEM,
    TRUSTED_INSTALLER,
    USERS,
    Allow,
    security_descriptor,
    sid,
)
from examples.layer_tar import LayerTar
from examples.minimal_hive import minimal_hive

DATA = Path(__file__).parent / "data"

# Pinned, so that everybody measures the same bytes. Ansible, all small files, fills A up to their number.
WHEELS = (
    "numpy==2.5.5",
    "scipy==1.18.1",
    "pandas==3.1.1",
    "pywin32==312",
    "lxml==6.1.3",
    "sympy==1.14.0",
    "django==6.1.3",
    "PySide6-Essentials==6.12.0",
    "opencv-python==5.0.0.93",
    "scikit-learn==1.9.1",
    "matplotlib==3.11.2",
    "pyarrow==26.0.1",
    "plotly==7.1.0",
    "ansible==14.5.0",
)
WHEELS_ARE_FOR = ("--platform", "win_amd64", "--python-version", "3.12")
FILES_IN_A = 30_000
SITE_PACKAGES = "Files/Program Files/Python312/Lib/site-packages"

CONFIG = "Files/Windows/System32/config"
HIVES = ("SYSTEM", "SOFTWARE", "SAM", "SECURITY", "DEFAULT")

SYSTEM_ONLY = security_descriptor(SYSTEM, SYSTEM, [Allow(SYSTEM, FULL_ACCESS, INHERIT_TO_ALL)])
NOT_IN_FILE_NAMES = frozenset('<>:"|?*\\')


def _descriptors() -> list[bytes]:
    """Twenty that differ, by their owner and by the users who have rights of their own."""
    common = [Allow(SYSTEM, FULL_ACCESS), Allow(ADMINISTRATORS, FULL_ACCESS), Allow(USERS, READ_AND_EXECUTE)]
    users = [Allow(sid(5, 21, 1, 2, 3, 1000 + number), FULL_ACCESS) for number in range(4)]
    return [
        security_descriptor(owner, SYSTEM, common + users[:count])
        for owner in (SYSTEM, ADMINISTRATORS, TRUSTED_INSTALLER, USERS)
        for count in range(5)
    ]


DESCRIPTORS = _descriptors()


def add_hives(layer: LayerTar) -> None:
    layer.directory(CONFIG, DESCRIPTORS[0])
    for name in HIVES:
        layer.file(f"{CONFIG}/{name}", minimal_hive(name), SYSTEM_ONLY)


def random_layer(files: int, size: int, a_directory: int = 50, *, hives: bool = True, name: str = "file") -> bytes:
    """A tar with so many files of `size` random bytes, `a_directory` of them to a directory."""
    contents = random.Random(files * size)
    with io.BytesIO() as out:
        with LayerTar(out) as layer:
            if hives:
                add_hives(layer)
            for number in range(files):
                parent = f"Files/Data/{number // a_directory:03d}"
                layer.directory(parent, DESCRIPTORS[0])
                data = contents.randbytes(size)
                layer.file(f"{parent}/{name}-{number:06d}.txt", data, DESCRIPTORS[number % len(DESCRIPTORS)])
        return out.getvalue()


def _wheel_files(wheels: Path) -> Iterator[tuple[str, bytes]]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, *WHEELS_ARE_FOR, "--dest", str(wheels), *WHEELS], check=True)
    for requirement in WHEELS:
        project, _, version = requirement.partition("==")
        stem = f"{project.lower().replace('-', '_')}-{version}-"
        wheel = next(path for path in sorted(wheels.iterdir()) if path.name.lower().startswith(stem))
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    yield member.filename, archive.read(member)


def _make_a(layer: LayerTar) -> None:
    seen: set[str] = set()
    for name, data in _wheel_files(DATA / "wheels"):
        if len(seen) == FILES_IN_A:
            break
        if name.lower() in seen or not NOT_IN_FILE_NAMES.isdisjoint(name):
            continue
        descriptor = DESCRIPTORS[len(seen) % len(DESCRIPTORS)]
        seen.add(name.lower())
        path = f"{SITE_PACKAGES}/{name}"
        layer.directory(path.rpartition("/")[0], DESCRIPTORS[0])
        layer.file(path, data, descriptor)


def add_made_up_files(layer: LayerTar, directories: int, files_in_each: int, mean_size: int, seed: int = 1) -> None:
    """Text after the file's own name, so that only files too short for the name can be equal.

    Sizes are spread exponentially around `mean_size` bytes: many short files, a few long ones.
    """
    numbers = random.Random(seed)
    words = [numbers.randbytes(numbers.randrange(1, 7)).hex().encode() for _ in range(4096)]
    text = b" ".join(numbers.choices(words, k=600_000))
    longest = 64 * mean_size
    for directory in range(directories):
        parent = f"Files/Data/{directory:04d}"
        layer.directory(parent, DESCRIPTORS[0])
        for number in range(files_in_each):
            name = f"{parent}/file-{number:06d}.txt"
            size = min(int(numbers.expovariate(1 / mean_size)), longest)
            start = numbers.randrange(len(text) - longest)
            data = (name.encode() + b"\n" + text[start : start + size])[:size]
            layer.file(name, data, DESCRIPTORS[number % len(DESCRIPTORS)])


def _make_b(layer: LayerTar) -> None:
    add_made_up_files(layer, directories=1000, files_in_each=100, mean_size=3200)


def _make_c(layer: LayerTar) -> None:
    add_made_up_files(layer, directories=4000, files_in_each=50, mean_size=1024)


def _make_d(layer: LayerTar) -> None:
    add_made_up_files(layer, directories=1, files_in_each=100_000, mean_size=128)


def _make_e(layer: LayerTar) -> None:
    add_made_up_files(layer, directories=10_000, files_in_each=100, mean_size=100)


MAKERS: dict[str, Callable[[LayerTar], None]] = {
    "A": _make_a,
    "B": _make_b,
    "C": _make_c,
    "D": _make_d,
    "E": _make_e,
}


def make(name: str) -> Path:
    """The path of input `name`, which is made first, with its `.gz`, where it is missing."""
    DATA.mkdir(exist_ok=True)
    tar, compressed = DATA / f"{name}.tar", DATA / f"{name}.tar.gz"
    if not tar.exists():
        partial = tar.with_suffix(".partial")
        with partial.open("wb") as out, LayerTar(out) as layer:
            add_hives(layer)
            MAKERS[name](layer)
        partial.rename(tar)
    if not compressed.exists():
        partial = compressed.with_suffix(".partial")
        with (
            tar.open("rb") as source,
            partial.open("wb") as out,
            igzip.IGzipFile("", "wb", compresslevel=1, fileobj=out, mtime=0) as sink,  # type: ignore[no-untyped-call]
        ):
            copyfileobj(source, sink, 1 << 20)
        partial.rename(compressed)
    return tar


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the inputs of the benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="A to E (default: all)")
    names = parser.parse_args().names or list(MAKERS)
    if unknown := set(names) - set(MAKERS):
        parser.error(f"no such input: {', '.join(sorted(unknown))}")
    for name in names:
        tar = make(name)
        print(f"{tar}: {tar.stat().st_size:,} bytes, {tar.with_suffix('.tar.gz').stat().st_size:,} as gzip")


if __name__ == "__main__":
    main()
