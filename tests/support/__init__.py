"""What tests share: builders, independent readers, and where things are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
