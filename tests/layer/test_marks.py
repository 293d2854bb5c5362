"""Marks of work on a layer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cimlayer.errors import ImageBusyError
from cimlayer.layer.marks import Mark, MarkKind
from cimlayer.layer.writer import CimLayerWriter

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


def test_a_directory_that_was_half_destroyed_is_marked_until_it_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "cim-layers"
    images.mkdir()
    (images / "layer.old").touch()
    (tmp_path / "layer").mkdir()
    seen: list[list[str]] = []
    clear = Mark.clear

    def look_and_clear(mark: Mark) -> None:
        seen.append(sorted(path.name for path in images.iterdir() if path.suffix in {".new", ".old"}))
        clear(mark)

    monkeypatch.setattr(Mark, "clear", look_and_clear)
    with pytest.raises(KeyError), CimLayerWriter(tmp_path / "layer", sync=False):
        raise KeyError
    assert seen == [["layer.new", "layer.old"], ["layer.new"]]
    assert os.listdir(images) == []
