"""Small versions of `benchmarks/soak.py` and `benchmarks/fleet_simulation.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT
from support.platforms import same_everywhere


@pytest.mark.skipif(sys.platform == "win32", reason="whoever is killed there keeps its files open")
def test_a_store_is_whole_whoever_was_killed(tmp_path: Path) -> None:
    words = ["-m", "benchmarks.soak", str(tmp_path / "soak"), "--layers", "40", "--processes", "3", "--kills", "5"]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 layers, 0 problems, 0 files left behind" in done.stdout


@same_everywhere
def test_a_simulated_fleet_is_close_to_the_ideal() -> None:
    words = ["-m", "benchmarks.fleet_simulation", "--images", "300", "--workers", "8", "--workers", "40"]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, encoding="utf-8", check=True, timeout=60
    )
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:4]]
    assert [float(row[3]) for row in rows] == pytest.approx([1, 1], abs=0.05)
