"""Processes that import into one store and are killed at any time: a small version of `benchmarks/soak.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT


@pytest.mark.skipif(sys.platform == "win32", reason="whoever is killed there keeps its files open")
def test_a_store_is_whole_whoever_was_killed(tmp_path: Path) -> None:
    words = ["-m", "benchmarks.soak", str(tmp_path / "soak"), "--layers", "40", "--processes", "3", "--kills", "5"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 layers, 0 problems, 0 files left behind" in done.stdout
