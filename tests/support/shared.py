"""The larger samples, which a clone does not have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import ROOT

_SHARED = Path(os.environ.get("CIMLAYER_SHARED", ROOT.parent / "shared"))
SHARED_HIVES = _SHARED / "hives"
SHARED_LAYERS = _SHARED / "layers"

needs_layers = pytest.mark.skipif(not SHARED_LAYERS.is_dir(), reason="the layer corpus is not here")
