"""The chart in the README shows the table beside it."""

from __future__ import annotations

import runpy

from support import ROOT
from support.platforms import same_everywhere

pytestmark = same_everywhere


def test_the_chart_is_that_of_the_table() -> None:
    plot = runpy.run_path(str(ROOT / "benchmarks" / "plot.py"))
    assert len(plot["speeds"]()) > 3
    assert (ROOT / "docs" / "images" / "speed.svg").read_text("utf-8") == plot["chart"]()
