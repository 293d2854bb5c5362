"""``python -m fuzz.python TARGET``, then libFuzzer's arguments: one target under atheris."""

from __future__ import annotations

import importlib
import sys

import atheris

with atheris.instrument_imports(include=["cimlayer"]):
    target = importlib.import_module(f"fuzz.python.{sys.argv.pop(1)}")

atheris.Setup(sys.argv, target.run)
atheris.Fuzz()
