"""What tests need of a system, and marks for those that cannot run everywhere; docs/windows.md lists the reasons."""

from __future__ import annotations

import os
import sys

import pytest

WINDOWS = sys.platform == "win32"


def _is_wine() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.windll.ntdll, "wine_get_version")


WINE = _is_wine()


def posix_only(reason: str) -> pytest.MarkDecorator:
    """A mark for tests of what Windows does not have."""
    return pytest.mark.skipif(WINDOWS, reason=f"POSIX only: {reason}")


def not_under_wine(reason: str) -> pytest.MarkDecorator:
    """A mark for tests that would run on Windows itself, but not, or to no purpose, under wine."""
    return pytest.mark.skipif(WINE, reason=f"not under wine: {reason}")


def examples(number: int) -> int:
    """So many examples of a property; a tenth under wine, where each file operation is slow."""
    return max(5, number // 10) if WINE else number


needs_permissions = pytest.mark.skipif(WINDOWS or os.geteuid() == 0, reason="needs permission bits that bind this user")
