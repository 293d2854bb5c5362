"""Layers that are imported and closed, on a base with all hives."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimlayer.events import Event, LayerDone, LayerWarning
from support import layers
from support.tars import TarBuilder


def add(root: Path, tar: TarBuilder, name: str, parents: Sequence[str] = (), **options: Any) -> Path:
    source, above = io.BytesIO(tar.finish()), [root / parent for parent in parents]
    cimlayer.import_layer(source, root / name, above, sync=False, **options)
    return root / name


def add_and_hear(root: Path, tar: TarBuilder, name: str, parents: Sequence[str] = (), **options: Any) -> list[Event]:
    """The events of the end of an import."""
    events: list[Event] = []
    add(root, tar, name, parents, progress=events.append, **options)
    return [event for event in events if isinstance(event, LayerDone | LayerWarning)]


@pytest.fixture(scope="module")
def made_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layers")
    tar = TarBuilder()
    layers.add_base_hives(tar)
    add(root, tar, "base")
    return root


@pytest.fixture
def root(made_base: Path, tmp_path: Path) -> Path:
    shutil.copytree(made_base, tmp_path, dirs_exist_ok=True)
    return tmp_path
