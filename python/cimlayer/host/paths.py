"""Paths in the form that system calls take, and in the errors of these."""

from __future__ import annotations

import ntpath
import os
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST_PLAIN_PATH = 200  # of MAX_PATH's 260 characters: what lies below still needs some


@contextmanager
def errors_name(path: str | os.PathLike[str]) -> Iterator[None]:
    """OSErrors of an open file, which know no name, get this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None or isinstance(error.filename, int):  # or that of the descriptor alone
            error.filename = os.fspath(path)
        raise


def native_path(path: str | os.PathLike[str], *, windows: bool = os.name == "nt") -> str:
    r"""The absolute path in the form that system calls take.

    On Windows, slashes become backslashes, and a path that is too long for the old limit gets the prefix ``\\?\``, or
    ``\\?\UNC\`` for a share (Microsoft, "Maximum Path Length Limitation"). A path with such a prefix is not changed.
    """
    text = os.fspath(path)
    if not windows:
        return os.path.abspath(text)
    if text.startswith(("\\\\?\\", "\\\\.\\")):
        return text
    text = ntpath.abspath(text)
    if len(text) <= _LONGEST_PLAIN_PATH:
        return text
    return "\\\\?\\UNC" + text[1:] if text.startswith("\\\\") else "\\\\?\\" + text
