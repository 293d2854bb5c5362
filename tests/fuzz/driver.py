"""Starting libFuzzer on a target, for a number of runs or of seconds of CPU time."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fuzz.targets import Target

MEMORY = Path("/dev/shm")  # where targets work on files, if the system has it
TIMEOUT = 300  # seconds for one input: by the clock, and the machine may be busy


def memory_limit(target: Target) -> int:
    """In MiB. What this process has used at most counts for those that it starts, too (getrusage(2))."""
    return target.memory + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_inputs(inputs: dict[str, bytes], directory: Path) -> None:
    """Inputs as the files of a corpus."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in inputs.items():
        (directory / name).write_bytes(data)


def fuzz(
    target: Target,
    directory: Path,
    corpus: Path,
    *,
    runs: int = -1,
    cpu_seconds: int | None = None,
    to_terminal: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Fuzz from the seeds, the findings and ``corpus``, where inputs that reach something new are kept.

    It ends after that many runs (-1: never) or, by a limit of the process, that much CPU time. What breaks the target
    is written to ``found`` in ``directory``, where the target is also built and works.
    """
    found, given = directory / "found", directory / "seeds"
    found.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(parents=True, exist_ok=True)
    inputs = target.seeds() | target.findings()
    write_inputs({name: data for name, data in inputs.items() if len(data) <= target.max_len}, given)
    arguments = [
        f"-runs={runs}", "-seed=1", f"-max_len={target.max_len}", f"-timeout={TIMEOUT}",
        f"-rss_limit_mb={memory_limit(target)}", f"-artifact_prefix={found}{os.sep}", "-print_final_stats=1",
        str(corpus), str(given),
    ]  # fmt: skip
    return _start(target, directory, arguments, cpu_seconds, None if to_terminal else subprocess.PIPE)


def replay(target: Target, directory: Path, inputs: Iterable[Path]) -> subprocess.CompletedProcess[str]:
    """Run these inputs and no others."""
    directory.mkdir(parents=True, exist_ok=True)
    arguments = [f"-timeout={TIMEOUT}", f"-rss_limit_mb={memory_limit(target)}", *map(str, inputs)]
    return _start(target, directory, arguments, None, subprocess.PIPE)


def is_clean(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether nothing was found: the process ended well, or by the limit of its CPU time."""
    return done.returncode in (0, -signal.SIGXCPU)


def _start(
    target: Target, directory: Path, arguments: list[str], cpu_seconds: int | None, output: int | None
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if cpu_seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 60))

    with tempfile.TemporaryDirectory(prefix="cimlayer-fuzz-", dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        return subprocess.run(
            [*target.command(directory), *arguments],
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "TMPDIR": scratch},
            preexec_fn=limit,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
