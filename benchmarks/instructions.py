"""Counts the instructions of the scenarios and compares them with those kept.

Run it with `python -m benchmarks.instructions`. Times are noise on shared machines; instruction counts
are not. What counts is the extension's own code and the C library functions that it calls, as callgrind
sees them: neither the interpreter nor the kernel, so that another Python version, a slower disk or a busy
neighbour changes next to nothing. A different compiler does, and so does a processor for which the C library
chooses another `memcpy`, which is why the file names both. The start of a process is the interpreter's work:
there everything counts, and the file names the version of Python too.
"""

import argparse
import compileall
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import cimfs_ext
import cimlayer
from benchmarks.scenarios import SCENARIOS, STARTS, Start

COUNTS = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.10  # hash tables are keyed with random numbers, which moves the small scenarios by some per cent

SUMMARY = re.compile(r"^summary: (\d+)", re.MULTILINE)
C_LIBRARY = re.compile(r"lib(c|m|pthread|gcc_s)[.-]")
COMPRESSED_NAME = re.compile(r"\((\d+)\)(?: (.*))?")


def count_in_extension(profile: Iterable[str], package: str = "cimfs_ext") -> int:
    """The instructions spent in a package's shared objects and in the C library on their behalf.

    `profile` is the text of a callgrind output file (Valgrind's manual, "Callgrind Format Specification").
    There `ob=` names the object that the following costs belong to. After `calls=` comes one line with the
    cost of the whole call, into the object that the last `cob=` named, or else into the same object.
    """
    objects: dict[str, str] = {}

    def name_of(compressed: str) -> str:
        match = COMPRESSED_NAME.fullmatch(compressed)
        if match is None:
            return compressed
        number, name = match.groups()
        return objects.setdefault(number, name or "")

    total = 0
    ours = calls_c_library = is_call = False
    for line in profile:
        key, equals, value = line.rstrip("\n").partition("=")
        if equals:
            if key == "ob":
                ours = Path(name_of(value)).parent.name == package
            elif key == "cob":
                calls_c_library = C_LIBRARY.match(Path(name_of(value)).name) is not None
            elif key == "calls":
                is_call = True
        elif line[:1] in "0123456789+-*":
            if ours and (calls_c_library or not is_call):
                _, _, cost = line.partition(" ")
                total += int(cost or 0)
            if is_call:
                is_call = calls_c_library = False
    return total


def count(name: str) -> int:
    """Prepares and runs one scenario under callgrind."""
    with tempfile.TemporaryDirectory() as temporary:
        directory, profile = Path(temporary, "work"), Path(temporary, "profile")
        directory.mkdir()
        if name in STARTS:
            return _count_start(STARTS[name], directory, profile)
        SCENARIOS[name].prepare(directory)
        _run(profile, "-m", "benchmarks.scenarios", name, str(directory))
        with profile.open(encoding="utf-8") as lines:
            return count_in_extension(lines)


def _count_start(start: Start, directory: Path, profile: Path) -> int:
    start.prepare(directory)
    for package in (cimlayer, cimfs_ext):
        compileall.compile_dir(package.__path__[0], quiet=1)
    counted = []
    for program in ((start.program, *start.arguments), (start.floor,)):
        _run(profile, "-c", *program, directory=directory)
        found = SUMMARY.search(profile.read_text("utf-8"))
        assert found is not None
        counted.append(int(found[1]))
    return counted[0] - counted[1]


def _run(profile: Path, *python: str, directory: Path | None = None) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "0", "LD_BIND_NOW": "1"}
    valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={profile}", sys.executable]
    subprocess.run([*valgrind, *python], cwd=directory, env=environment, stdout=subprocess.DEVNULL, check=True)


def circumstances() -> dict[str, str]:
    """What must be the same for counts to be compared: the C compiler, the processor, and Python for its start."""
    command = [os.environ.get("CC", "cc"), "--version"]
    compiler = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.splitlines()[0]
    processor = dict(re.findall(r"^([^:\n]*?)\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE))
    kind = ("vendor_id", "cpu family", "model", "stepping")
    return {
        "compiler": compiler,
        "processor": " ".join(processor.get(name, "?") for name in kind),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def _kept() -> tuple[dict[str, str], dict[str, int]]:
    if not COUNTS.exists():
        return circumstances(), {}
    content = json.loads(COUNTS.read_text("utf-8"))
    return content["circumstances"], content["counts"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare instruction counts with those kept.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios (default: all)")
    parser.add_argument("--update", action="store_true", help="keep what is counted now")
    options = parser.parse_args()
    names = options.names or [*SCENARIOS, *STARTS]
    if unknown := set(names) - {*SCENARIOS, *STARTS}:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")

    kept_with, kept = _kept()
    counted: dict[str, int] = {}
    worse: list[str] = []
    for name in names:
        counted[name] = count(name)
        before = kept.get(name)
        change = f"{counted[name] / before - 1:+.2%}" if before else "new"
        print(f"{name:20} {counted[name]:15,} {change:>8}")
        if not before or counted[name] > before * (1 + TOLERANCE):
            worse.append(name)

    if options.update:
        content = {"circumstances": circumstances(), "counts": dict(sorted((kept | counted).items()))}
        COUNTS.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
        return 0
    if circumstances() != kept_with:
        print(f"not compared: kept with {kept_with}, counted with {circumstances()}", file=sys.stderr)
        return 0
    if worse:
        print(
            f"more than {TOLERANCE:.0%} above the count kept, or none kept: {', '.join(worse)}",
            file=sys.stderr,
        )
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
