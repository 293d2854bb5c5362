"""File operations of Python that fail: the n-th of a block, for any n."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

# What each operation fails with: an error that it really has.
CALLS = {
    "open": errno.EACCES, "mkdir": errno.ENOSPC, "unlink": errno.EACCES, "rmdir": errno.EIO, "rename": errno.EIO,
    "replace": errno.EIO, "link": errno.EIO, "symlink": errno.ENOSPC, "stat": errno.EIO, "lstat": errno.EIO,
    "fstat": errno.EIO, "listdir": errno.EIO, "scandir": errno.EIO, "fsync": errno.EIO, "utime": errno.EIO,
}  # fmt: skip
METHODS = {
    "read": errno.EIO, "readinto": errno.EIO, "write": errno.ENOSPC, "flush": errno.ENOSPC,
    "truncate": errno.ENOSPC, "close": errno.ENOSPC,
}  # fmt: skip


Place = tuple[tuple[str, int], ...]


def _callers() -> Place:
    """The lines that led here, as far as they are the library's."""
    frame, lines = sys._getframe(2), []
    while frame is not None:
        if "cimlayer" in frame.f_code.co_filename:
            lines.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(lines)


def at_every_place(places: Sequence[Place], times: int) -> list[int]:
    """The numbers of operations, of those at one place only the first ones and the last."""
    numbers = defaultdict(list)
    for number, place in enumerate(places):
        numbers[place].append(number)
    return sorted({number for found in numbers.values() for number in (*found[:times], found[-1])})


class Faults:
    """Counts operations; the one of number ``failing``, from 0, raises ``error``. ``places`` are those that it met."""

    def __init__(self, failing: int) -> None:
        self.failing = failing
        self.places: list[Place] = []
        self.error: OSError | None = None
        self.what = ""
        self._lock = threading.Lock()

    def look(self, name: str, number: int) -> None:
        """One operation."""
        with self._lock:
            self.places.append(_callers())
            fails = len(self.places) - 1 == self.failing
        if fails:
            self.what = name
            self.error = OSError(number, os.strerror(number), f"injected into {name}")
            raise self.error

    def wrapped(self, name: str, number: int, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.look(name, number)
            return call(*args, **kwargs)

        return wrapper

    def open(self, *args: Any, **kwargs: Any) -> Any:
        self.look("io.open", errno.EACCES)
        return _File(_open(*args, **kwargs), self)


class Interrupts(Faults):
    """As Faults, but before the operation of number ``failing`` comes a SIGINT, and the operation is done."""

    def look(self, name: str, number: int) -> None:
        """One operation."""
        with self._lock:
            self.places.append(_callers())
            interrupts = len(self.places) - 1 == self.failing
        if interrupts:
            self.what = name
            signal.raise_signal(signal.SIGINT)


_open = io.open


class _File:
    """A file whose methods are counted."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._file, name)
        return self._faults.wrapped(name, METHODS[name], method) if name in METHODS else method

    def close(self) -> None:
        """Closed even if what was buffered cannot be written."""
        was_written = not self._file.closed and self._file.writable()
        self._file.close()
        if was_written:
            self._faults.look("close", METHODS["close"])

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@contextmanager
def failing(number: int, kind: type[Faults] = Faults) -> Iterator[Faults]:
    """Meanwhile the operation of that number fails."""
    faults = kind(number)
    with ExitStack() as stack:
        for name, error in CALLS.items():
            wrapper = faults.wrapped(name, error, getattr(os, name))
            supported = getattr(os, name) in os.supports_dir_fd
            stack.enter_context(mock.patch.object(os, name, wrapper))
            if supported:
                os.supports_dir_fd.add(wrapper)
                stack.callback(os.supports_dir_fd.discard, wrapper)
        stack.enter_context(mock.patch.object(io, "open", faults.open))
        stack.enter_context(mock.patch.object(builtins, "open", faults.open))
        yield faults


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Meanwhile no file gets larger: EFBIG, which is as ENOSPC to the library."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
