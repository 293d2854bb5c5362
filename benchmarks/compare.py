"""Runs the tools of one task in turn on the same input and prints a table: `python -m benchmarks.compare`.

What is measured and how to read it: README.md beside this file.
"""

import argparse
import itertools
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.inputs import DATA
from benchmarks.plot import chart
from benchmarks.tools import TASKS, Form, Role, Task, Tool

MIB = 1 << 20
CLAIMED = 1536 * MIB
MANY_FILES = 1000


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one tool: seconds on the clock, seconds of processor time, bytes at the peak."""

    wall: float
    cpu: float
    peak: int


@dataclass(slots=True)
class Result:
    """All the runs of a tool, or why there are none."""

    tool: Tool
    command: str
    runs: list[Run] = field(default_factory=list)
    missing: str = ""

    @property
    def wall(self) -> float:
        return statistics.median(run.wall for run in self.runs)


class CommandError(Exception):
    """A command failed; the message is the last that it said."""


def _shell(command: str) -> Run:
    """Runs a shell command silently and takes the resources of all its processes."""
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise CommandError(said[-1] if said else f"exit status {process.returncode}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def _version(command: str) -> str:
    """The first line that a tool says of itself; empty where it is missing or not fit."""
    outcome = subprocess.run(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False
    )
    lines = (outcome.stdout + outcome.stderr).strip().splitlines()
    return lines[0] if outcome.returncode == 0 and lines else ""


def _read_into_cache(path: Path) -> None:
    buffer = bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _claim_memory(directory: Path) -> None:
    """Fills and frees page cache, so that the run finds free memory that is backed.

    Under a hypervisor with free page reporting, memory that lay free for two seconds is the host's again, and
    whoever writes next pays several times the price of the copy itself to get it back.
    """
    filler = directory / "filler"
    block = bytes(MIB)
    with filler.open("wb", buffering=0) as file:
        for _ in range(CLAIMED // MIB):
            file.write(block)
    filler.unlink()


def _discard(out: Path, keep_as: Path) -> None:
    """Deletes what a run left, at once if it is a handful of files.

    A whole tree is kept to the end: ext4 without a journal does not reuse an inode for minutes after its
    deletion, and steps over each such inode for every file that the next run makes.
    """
    if any(itertools.islice(out.rglob("*"), MANY_FILES, None)):
        out.rename(keep_as)
    else:
        shutil.rmtree(out)


def measure(task: Task, tar: Path, rounds: int, only: list[str], directory: Path) -> list[Result]:
    """Every tool once in each round, so that a slow minute of the machine falls on all of them."""
    (directory / "prepared").mkdir()
    with task.service(directory / "prepared"):
        return _measure(task, tar, rounds, only, directory)


def _measure(task: Task, tar: Path, rounds: int, only: list[str], directory: Path) -> list[Result]:
    form = Form.of(tar)
    out, prepared = directory / "out", directory / "prepared"
    names = {"python": sys.executable, "input": tar, "out": out, "prepared": prepared}
    words = {name: shlex.quote(str(value)) for name, value in names.items()}

    results = []
    for tool in task.tools:
        template = tool.commands.get(form)
        if template is not None and (not only or tool.name in only):
            missing = "" if _version(tool.version.format(**words)) else "not installed, or too old for the job"
            results.append(Result(tool, template.format(**words), missing=missing))
    if task.preparation:
        _shell(task.preparation.format(**words))
    for number in range(rounds):
        _read_into_cache(tar)
        for result in results:
            if result.missing:
                continue
            print(f"round {number + 1} of {rounds}: {result.tool.name}", file=sys.stderr)
            out.mkdir()
            os.sync()  # what the run before left to be written is not this one's to wait for
            _claim_memory(directory)
            try:
                result.runs.append(_shell(result.command))
            except CommandError as error:
                result.missing = f"failed: {error}"
            _discard(out, directory / f"{number}-{result.tool.name}")
    return results


def _table(results: list[Result], baseline: str) -> list[str]:
    base = next((result.wall for result in results if result.tool.name == baseline and result.runs), None)
    lines = [
        f"| tool | | seconds (median) | fastest | x {baseline} | processor seconds | peak MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        start = f"| {result.tool.name} | {result.tool.role.value} |"
        if result.missing:
            lines.append(f"{start} {result.missing} | | | | |")
            continue
        fastest = min(run.wall for run in result.runs)
        cpu = statistics.median(run.cpu for run in result.runs)
        peak = max(run.peak for run in result.runs) / MIB
        ratio = f"{result.wall / base:.2f}" if base else ""
        lines.append(f"{start} {result.wall:.2f} | {fastest:.2f} | {ratio} | {cpu:.2f} | {peak:.0f} |")
    return lines


def _beyond(results: list[Result], baseline: str, times: int) -> list[str]:
    """What one call takes beyond the baseline, in milliseconds: for short ones that says more than a ratio."""
    base = next((result for result in results if result.tool.name == baseline and result.runs), None)
    if times == 1 or base is None:
        return []

    def difference(result: Result, of: Callable[[Run], float]) -> str:
        wall = [statistics.median(map(of, each.runs)) for each in (result, base)]
        return f"{(wall[0] - wall[1]) / times * 1000:.1f}"

    return [
        f"{result.tool.name}: {difference(result, lambda run: run.wall)} ms beyond {baseline},"
        f" {difference(result, lambda run: run.cpu)} of them of the processor."
        for result in results
        if result.runs and result is not base
    ]


def _against_peers(results: list[Result]) -> list[str]:
    peers = [result for result in results if result.tool.role is Role.PEER and not result.missing]
    if not peers:
        return []
    fastest = min(peers, key=lambda peer: peer.wall)
    return [
        f"{ours.tool.name} is {fastest.wall / ours.wall:.2f} times as fast as {fastest.tool.name},"
        " the fastest peer here."
        for ours in results
        if ours.tool.role is Role.OURS and not ours.missing
    ]


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    load = os.getloadavg()[0]
    return f"{cores} x {model}, {memory:.0f} GiB, Linux {platform.release()}, load {load:.1f} at the start."


def _versions(results: list[Result]) -> list[str]:
    said = {_version(result.tool.version.format(python=shlex.quote(sys.executable))) for result in results}
    return sorted(said - {""})


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare cimlayer with other tools on the same input.")
    parser.add_argument("--task", choices=TASKS, default="import")
    parser.add_argument("--input", type=Path, default=DATA / "A.tar", help="a tar (default: A.tar)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--only", action="append", default=[], metavar="TOOL", help="repeat for more than one")
    parser.add_argument("--output-dir", type=Path, default=DATA, help="where the tools write (default: beside A.tar)")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="only draw the table of README.md as a chart")
    options = parser.parse_args()
    if options.plot is not None:
        options.plot.write_text(chart(), "utf-8")
        return
    task = TASKS[options.task]
    if unknown := set(options.only) - {tool.name for tool in task.tools}:
        parser.error(f"no such tool: {', '.join(sorted(unknown))}")

    machine = _machine()
    # The tools installed with this interpreter come first.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="compare-", dir=options.output_dir) as directory:
        floor = _shell("true").peak / MIB
        try:
            results = measure(task, options.input.resolve(), options.rounds, options.only, Path(directory))
        except CommandError as error:
            sys.exit(f"the preparation of {options.task} failed: {error}")

    megabytes = options.input.stat().st_size / 1e6
    print(f"`{options.task}` of {options.input.name}, {megabytes:,.0f} MB, {options.rounds} rounds.", machine)
    print()
    baseline = task.baselines[Form.of(options.input)]
    print("\n".join(_table(results, baseline)))
    said = [*_beyond(results, baseline, task.times), *_against_peers(results)]
    print("", *said, f"A peak below {floor:.0f} MiB cannot be told.", sep="\n")
    print("", *(f"- {version}" for version in _versions(results)), sep="\n")


if __name__ == "__main__":
    main()
