"""The table of speeds in README.md as a chart: `python -m benchmarks.compare --plot docs/images/speed.svg`."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
_LEFT, _WIDTH, _ROW, _BAR = 300, 420, 44, 15
_COLUMNS = (("plain tar", "#4c78a8"), ("gzip -6", "#f58518"))
_STYLE = "text{font:13px sans-serif;fill:#333}.ours{font-weight:bold}rect.page{fill:#fff}"


def speeds() -> list[tuple[str, float | None, float | None]]:
    """Tool, seconds for a plain tar and for gzip; only tools that make something of a tar."""
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]*) ?\| ([\d.]*) ?\|$", README.read_text("utf-8"), re.MULTILINE)
    return [(name.replace("`", ""), *(float(cell) if cell else None for cell in cells)) for name, *cells in rows]


def chart() -> str:
    """The chart as SVG; shorter bars are better."""
    rows = speeds()
    longest = max(seconds for _, *cells in rows for seconds in cells if seconds is not None)
    height = _ROW * len(rows) + 50
    total = _LEFT + _WIDTH + 70
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}">',
        f'<style>{_STYLE}</style><rect class="page" width="{total}" height="{height}"/>',
    ]
    for number, (title, color) in enumerate(_COLUMNS):
        x = _LEFT + 160 * number
        lines.append(f'<rect x="{x}" y="12" width="12" height="12" fill="{color}"/>')
        lines.append(f'<text x="{x + 18}" y="23">{title}, seconds</text>')
    for row, (name, *cells) in enumerate(rows):
        top = 40 + row * _ROW
        short = escape(name.partition(" -")[0])
        weight = ' class="ours"' if name.startswith("cimlayer") else ""
        lines.append(f'<text{weight} x="{_LEFT - 10}" y="{top + _BAR + 4}" text-anchor="end">{short}</text>')
        for number, (seconds, (_, color)) in enumerate(zip(cells, _COLUMNS, strict=True)):
            if seconds is not None:
                y, width = top + number * (_BAR + 2), seconds / longest * _WIDTH
                lines.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{color}"/>')
                lines.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + 12}">{seconds:.2f}</text>')
    return "\n".join([*lines, "</svg>", ""])
