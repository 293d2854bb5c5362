"""The trees of two layers, compared."""

from __future__ import annotations

from pathlib import Path

import cimlayer
from cimlayer.image.compare import diff_images
from cimlayer.layer.paths import get_cim_path_from_layer


def link_groups(image: cimlayer.ImageReader) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for path, entry in image.walk():
        groups.setdefault(entry.file_id, set()).add(path)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def assert_equal_trees(one: Path, other: Path, ignored: tuple[str, ...] = ()) -> None:
    with (
        cimlayer.ImageReader(get_cim_path_from_layer(one)) as ours,
        cimlayer.ImageReader(get_cim_path_from_layer(other)) as theirs,
    ):
        assert [change for change in diff_images(ours, theirs) if change.path not in ignored] == []
        assert link_groups(ours) == link_groups(theirs)
