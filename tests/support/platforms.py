"""What tests need of a system, and marks for those that cannot run everywhere; docs/windows.md lists the reasons."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

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


# Of modules that say something of this repository, or of a computation: time is spent on it once.
same_everywhere = not_under_wine("what is the same on every system")


def _can_link() -> bool:
    with tempfile.TemporaryDirectory() as directory:
        link = Path(directory, "link")
        try:
            link.symlink_to("nowhere")
        except OSError:
            return False
        return link.is_symlink()


# On Windows a privilege that administrators have, or developer mode; wine says yes and makes none.
HAS_SYMLINKS = _can_link()
needs_symlinks = pytest.mark.skipif(not HAS_SYMLINKS, reason="symbolic links cannot be made here")
A_SYMLINK, A_BROKEN_LINK = (pytest.param(name, marks=needs_symlinks) for name in ("a symbolic link", "a broken link"))


# Under wine each file operation is slow; and with a loaded library, the same tests run a second time over the same C.
FEW_EXAMPLES = WINE or os.environ.get("CIMLAYER_IMPLEMENTATION") == "system"


def examples(number: int) -> int:
    """How many examples of a property are tried: a tenth of that number where few will do."""
    return max(5, number // 10) if FEW_EXAMPLES else number


needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills a process at once here")
needs_permissions = pytest.mark.skipif(WINDOWS or os.geteuid() == 0, reason="needs permission bits that bind this user")
