"""Marks of work on a layer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cimlayer.errors import ImageBusyError
from cimlayer.layer.marks import Mark, MarkKind

DESCRIPTORS = Path("/proc/self/fd")


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="no list of open descriptors")
def test_a_mark_that_somebody_holds_is_not_kept_open(tmp_path: Path) -> None:
    held = Mark(tmp_path / "layer.cim", MarkKind.WRITING)
    before = len(os.listdir(DESCRIPTORS))
    for _ in range(3):
        with pytest.raises(ImageBusyError):
            Mark(tmp_path / "layer.cim", MarkKind.WRITING)
    assert len(os.listdir(DESCRIPTORS)) == before
    held.clear()
    assert os.listdir(tmp_path) == []
