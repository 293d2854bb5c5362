"""Makes the tars that the benchmarks import: `python -m benchmarks.inputs [NAME ...]`, from the root.

Each is a Windows base layer, made only when it is missing, the same bytes every time:

A  30,000 real files out of public Windows wheels, about 1 GB: large DLLs and many small files
B  100,000 small files, about 500 MB
C  200,000 files of about 6 KB in 4,000 directories, 1.2 GB
D  one directory with 100,000 entries
E  four files of 256 MiB
F  1,000,000 files of 100 bytes in 10,000 directories

A name is that of a file (`A.tar`, `A.9.tar.gz`), or a letter alone: the plain tar and its `.tar.gz`.
"""

import argparse
import gzip
import io
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copyfileobj

from benchmarks.layouts import Layout
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
    add_made_up_files(layer, directories=4000, files_in_each=50, mean_size=6000)


def _make_d(layer: LayerTar) -> None:
    add_made_up_files(layer, directories=1, files_in_each=100_000, mean_size=128)


def _make_e(layer: LayerTar) -> None:
    add_made_up_files(layer, directories=1, files_in_each=1, mean_size=100)
    numbers = random.Random(5)
    for number in range(4):
        blocks = (numbers.randbytes(1 << 15) + numbers.randbytes(1 << 9) * 64 for _ in range(1 << 12))
        layer.file(f"Files/huge-{number}.bin", b"".join(blocks), DESCRIPTORS[number])


def _make_f(layer: LayerTar) -> None:
    add_made_up_files(layer, directories=10_000, files_in_each=100, mean_size=100)


MAKERS: dict[str, Callable[[LayerTar], None]] = {
    "A": _make_a,
    "B": _make_b,
    "C": _make_c,
    "D": _make_d,
    "E": _make_e,
    "F": _make_f,
}


# ---- compressed ----


def _gzip(level: int) -> Callable[[Path, Path], None]:
    def compress(tar: Path, target: Path) -> None:
        with tar.open("rb") as source, target.open("wb") as out, gzip.GzipFile("", "wb", level, out, 0) as sink:
            copyfileobj(source, sink, 1 << 20)

    return compress


def _zstd(level: int) -> Callable[[Path, Path], None]:
    def compress(tar: Path, target: Path) -> None:
        subprocess.run(["zstd", "-q", "-f", f"-{level}", str(tar), "-o", str(target)], check=True)

    return compress


def _go(tar: Path, target: Path) -> None:
    """What a Go program pushes: skopeo has the writer of podman and buildah, docker's is alike."""
    with tempfile.TemporaryDirectory(dir=tar.parent) as directory:
        layout = Layout(Path(directory) / "layout")
        image = layout.add_image("image", [layout.add_plain_layer(tar)])
        copied = Path(directory) / "copied"
        subprocess.run(["skopeo", "copy", "-q", "--dest-compress", f"oci:{image}", f"dir:{copied}"], check=True)
        max(copied.iterdir(), key=lambda path: path.stat().st_size).rename(target)


FORMS: dict[str, Callable[[Path, Path], None]] = {
    ".tar.gz": _gzip(6),  # as `gzip` has it, and most that is served
    ".1.tar.gz": _gzip(1),
    ".9.tar.gz": _gzip(9),
    ".go.tar.gz": _go,
    ".tar.zst": _zstd(3),
    ".19.tar.zst": _zstd(19),
}


def make(name: str) -> Path:
    """The path of an input, which is made where it is missing: `C.tar`, or another form of it."""
    DATA.mkdir(exist_ok=True)
    path = DATA / name
    letter, form = name[:1], name[1:]
    if not path.exists():
        partial = path.with_suffix(".partial")
        if form == ".tar":
            with partial.open("wb") as out, LayerTar(out) as layer:
                add_hives(layer)
                MAKERS[letter](layer)
        else:
            FORMS[form](make(f"{letter}.tar"), partial)
        partial.rename(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the inputs of the benchmarks.")
    known = {letter + form for letter in MAKERS for form in (".tar", *FORMS)}
    parser.add_argument("names", nargs="*", metavar="NAME", help="A, A.tar, A.tar.gz, ... (default: all letters)")
    names = [
        each
        for name in parser.parse_args().names or MAKERS
        for each in ((f"{name}.tar", f"{name}.tar.gz") if name in MAKERS else (name,))
    ]
    if unknown := set(names) - known:
        parser.error(f"no such input: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    for name in names:
        path = make(name)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
