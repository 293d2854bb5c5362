"""Every fuzz target: its seeds and findings replayed, then a fixed number of mutated inputs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the driver needs POSIX", allow_module_level=True)

from fuzz.driver import fuzz, is_clean, replay, write_inputs
from fuzz.targets import NATIVE, PYTHON, NativeTarget, PythonTarget, Target, Unavailable


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where targets are built, each once."""
    return tmp_path_factory.mktemp("fuzz")


def name_of(target: Target) -> str:
    return target.name


@pytest.mark.parametrize("target", NATIVE, ids=name_of)
def test_seeds_and_findings_are_survived_by_c(target: NativeTarget, work: Path) -> None:
    inputs = target.seeds() | target.findings()
    write_inputs(inputs, work / target.name / "whole")  # libFuzzer cuts what it mutates to max_len
    try:
        done = replay(target, work / target.name, [work / target.name / "whole" / name for name in inputs])
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert is_clean(done), done.stdout[-8000:]


@pytest.mark.parametrize("target", PYTHON, ids=name_of)
def test_seeds_and_findings_are_survived_by_python(target: PythonTarget) -> None:
    for data in (target.seeds() | target.findings()).values():
        target.run(data)


@pytest.mark.parametrize("target", NATIVE + PYTHON, ids=name_of)
def test_mutated_inputs_are_survived(target: Target, work: Path) -> None:
    directory = work / target.name
    try:
        done = fuzz(target, directory, directory / "corpus", runs=target.runs)
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert is_clean(done), done.stdout[-8000:]
    assert f"Done {target.runs} runs" in done.stdout
