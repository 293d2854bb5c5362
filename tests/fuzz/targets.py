"""What is fuzzed: one line each."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fuzz import seeds

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FINDINGS = HERE / "findings"

FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"),
    *("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", "-Icimfs_ext", "-Itests/c"),
)
LIBCIMFS = "cimfs_ext/libcimfs/*.c"


class Unavailable(Exception):
    """What a target needs is not installed here."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes any bytes. ``runs`` are those of every test run, ``max_len`` the longest input in bytes."""

    name: str
    runs: int
    max_len: int
    memory: int = 512  # MiB

    def seeds(self) -> dict[str, bytes]:
        """Inputs that are well-formed, or nearly."""
        raise NotImplementedError

    def findings(self) -> dict[str, bytes]:
        """Inputs that broke something once."""
        return {path.name: path.read_bytes() for path in sorted((FINDINGS / self.name).glob("*"))}

    def command(self, directory: Path) -> list[str]:
        """How libFuzzer is started on it; what must be built first is built in ``directory``."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class NativeTarget(Target):
    """``c/NAME.c`` with those sources, under AddressSanitizer and UBSan."""

    sources: tuple[str, ...] = ()

    def seeds(self) -> dict[str, bytes]:
        """Made by the function of that name."""
        make: Callable[[], dict[str, bytes]] = getattr(seeds, self.name)
        return make()

    def command(self, directory: Path) -> list[str]:
        """A program of its own."""
        program = directory / self.name
        if not program.exists():
            files = [HERE / "c" / f"{self.name}.c"]
            files += [file for pattern in self.sources for file in sorted(ROOT.glob(pattern))]
            _compile(files, program)
        return [str(program)]


@dataclass(frozen=True, slots=True)
class PythonTarget(Target):
    """The module ``python/NAME.py``, with atheris; the C below it is not instrumented."""

    def seeds(self) -> dict[str, bytes]:
        """Made by the module."""
        return dict(self._module().seeds())

    def run(self, data: bytes) -> None:
        """One input, without atheris."""
        self._module().run(data)

    def command(self, directory: Path) -> list[str]:
        """A Python of its own, since libFuzzer never returns."""
        if importlib.util.find_spec("atheris") is None:
            raise Unavailable("atheris is not installed (the extra 'fuzz' of cimlayer brings it)")
        return [sys.executable, "-m", "fuzz.python", self.name]

    def _module(self) -> ModuleType:
        return importlib.import_module(f"fuzz.python.{self.name}")


def _liblayer(*names: str) -> tuple[str, ...]:
    return tuple(f"cimfs_ext/liblayer/{name}.c" for name in names)


NATIVE = (
    NativeTarget("reader", 3_000, 20_000, 2048, sources=(LIBCIMFS, "tests/c/memory_io.c")),
    NativeTarget(
        "tar", 5_000, 24_576,
        sources=(LIBCIMFS, *_liblayer("base64", "builder", "ea", "importer", "path", "pathset", "reparse", "tar*")),
    ),
    NativeTarget("backupstream", 50_000, 1_024, sources=_liblayer("backupstream")),
    NativeTarget("ea", 20_000, 4_096, sources=_liblayer("base64", "ea")),
    NativeTarget("reparse", 20_000, 16_100, sources=_liblayer("reparse")),
    NativeTarget("hive", 20_000, 65_536, sources=("cimfs_ext/hive/*.c", "cimfs_ext/libcimfs/upcase.c")),
)  # fmt: skip
PYTHON = (
    PythonTarget("sddl", 20_000, 4_096),
    PythonTarget("metadata", 20_000, 1_024),
    PythonTarget("bcd", 1_000, 16_384),
    PythonTarget("layer", 150, 24_576, 2048),
    PythonTarget("directory", 150, 256, 2048),
    PythonTarget("archive", 150, 8_192, 2048),
)
TARGETS = {target.name: target for target in (*NATIVE, *PYTHON)}


def _compile(sources: list[Path], program: Path) -> None:
    """Each source by itself, so that a compiler cache serves the targets that share them."""
    objects = [program.parent / f"{source.parent.name}-{source.stem}.o" for source in sources]
    for source, compiled in zip(sources, objects, strict=True):
        _clang("-c", source, "-o", compiled)
    _clang(*objects, "-o", program)


def _clang(*arguments: str | Path) -> None:
    clang = shutil.which("clang")
    if clang is None:
        raise Unavailable("clang is not installed")
    done = subprocess.run([clang, *FLAGS, *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    if done.returncode and ("libclang_rt" in done.stderr or "unsupported option" in done.stderr):
        raise Unavailable("clang comes without libFuzzer or the sanitizers")
    if done.returncode:
        raise RuntimeError(done.stderr)
