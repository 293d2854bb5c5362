"""A report of a run of the tests that can be attached to an issue: the system, what passed, failed and was skipped."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import cimlayer
from support.platforms import WINE


def _system() -> Iterator[tuple[str, str]]:
    yield "system", platform.platform()
    if sys.platform == "win32":
        system = Path(os.environ["SYSTEMROOT"], "System32")
        yield "CimFS features are judged by", str(cimlayer.WindowsSystem.current())
        yield "wine", "yes" if WINE else "no"
        for name in ("cimfs.dll", "cimwriter.dll"):
            yield name, "there" if (system / name).exists() else "not there"
    yield "Python", sys.version
    yield "CIMLAYER_IMPLEMENTATION", os.environ.get("CIMLAYER_IMPLEMENTATION", "not set")


class Report:
    """Writes the file when the run ends."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        stats = terminalreporter.stats
        failures = [*stats.get("failed", []), *stats.get("error", [])]
        # A skip is the triple of its file, its line, and "Skipped: " with the reason.
        reasons = Counter(skip.longrepr[2].removeprefix("Skipped: ") for skip in stats.get("skipped", []))
        facts = [f"| {what} | {is_} |" for what, is_ in _system()]
        lines = ["# Tests of cimlayer", "", "| | |", "| --- | --- |", *facts]
        passed = len(stats.get("passed", []))
        lines += ["", f"{passed} passed, {len(failures)} failed, {sum(reasons.values())} skipped", ""]
        lines += ["## Skipped", "", "| tests | reason |", "| --- | --- |"]
        lines += [f"| {number} | {reason} |" for reason, number in reasons.most_common()]
        lines += ["", "## Failed"]
        for failure in failures:
            lines += ["", f"### {failure.nodeid}", "", "```", failure.longreprtext, "```"]
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
