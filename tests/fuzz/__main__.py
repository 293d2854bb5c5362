"""``python -m fuzz``, in the directory ``tests``: fuzz one target for as long as is wanted."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from fuzz.driver import fuzz, is_clean
from fuzz.targets import TARGETS, Unavailable


def main() -> int:
    """0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz one target; see docs/fuzzing.md.")
    parser.add_argument("target", choices=sorted(TARGETS))
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--runs", type=int, help="stop after so many inputs")
    length.add_argument("--cpu-seconds", type=int, help="stop after so much CPU time")
    parser.add_argument("--directory", type=Path, help="where to work and to leave what is found; kept")
    parser.add_argument("--corpus", type=Path, help="inputs to go on from; new ones are added [DIRECTORY/corpus]")
    given = parser.parse_args()
    directory = (given.directory or Path(tempfile.mkdtemp(prefix=f"fuzz-{given.target}-"))).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    corpus = (given.corpus or directory / "corpus").absolute()
    runs = -1 if given.runs is None else given.runs
    try:
        done = fuzz(
            TARGETS[given.target], directory, corpus, runs=runs, cpu_seconds=given.cpu_seconds, to_terminal=True
        )
    except Unavailable as error:
        parser.error(str(error))
    clean = is_clean(done)
    sys.stderr.write("nothing was found\n" if clean else f"found: see {directory / 'found'}\n")
    return 0 if clean else 1


sys.exit(main())
