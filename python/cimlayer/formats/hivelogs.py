"""Transaction logs beside a hive: ``NAME.LOG``, ``NAME.LOG1`` and ``NAME.LOG2``, in any case of letters.

Source of the names: Microsoft, "Registry Hives" (learn.microsoft.com/windows/win32/sysinfo/registry-hives).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cimfs_ext.names import upcase_key
from cimfs_ext.regf import Hive

_SUFFIXES = (".LOG", ".LOG1", ".LOG2")


def logs_among(hive: str, names: Iterable[str]) -> list[str]:
    """Those of ``names``, all from one directory, that are logs of the file ``hive``."""
    wanted = {upcase_key(hive + suffix) for suffix in _SUFFIXES}
    return sorted(name for name in names if upcase_key(name) in wanted)


def open_hive_file(path: str | os.PathLike[str], *, name: str = "") -> Hive:
    """Open a hive file as ``Hive.open`` does, with the logs that lie beside it."""
    file = Path(path)
    try:
        beside = os.listdir(file.parent)
    except OSError:  # a file may be read where its directory may not be listed
        beside = []
    logs = [log for log in (file.parent / each for each in logs_among(file.name, beside)) if log.is_file()]
    return Hive.open(file, logs=logs, name=name or os.fspath(path))
