"""Who has an image: writers, and whoever removes one, hold files of it (libcimfs/io.h, "lock").

A writer holds the draft of its image, so that each image has one; the ``.cim`` file that it forks or extends, so that
this stays; and the first region file of its set, so that none of its files is taken for garbage. Writers of different
images do not exclude each other.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cimlayer.errors import ImageBusyError
from cimlayer.events import CancellationToken
from cimlayer.host.filelocks import lock_holder, open_to_lock, try_lock, unlock_and_close
from cimlayer.host.interrupts import deferred

_T = TypeVar("_T")

_RETRY = 0.05  # seconds


@contextmanager
def held(file: Path, reason: str) -> Iterator[None]:
    """Hold a file alone; ImageBusyError with ``reason`` and the holder if somebody else does, OSError if it is gone."""
    with try_hold(file) as got:
        if not got:
            error = ImageBusyError(errno.EBUSY, reason, str(file))
            name_holder(error, file)
            raise error
        yield


@contextmanager
def try_hold(file: Path) -> Iterator[bool]:
    """Hold a file alone, if nobody else does; the value says so. FileNotFoundError if its name is gone meanwhile."""
    owner = os.getpid()
    descriptor = open_to_lock(file)
    is_open = True
    try:
        try:
            got = try_lock(descriptor)
            if got and not os.path.samestat(os.fstat(descriptor), file.stat(follow_symlinks=False)):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
            yield got
        finally:
            with deferred():
                is_open = False
                (unlock_and_close if os.getpid() == owner else os.close)(descriptor)
    except BaseException:
        if is_open:  # an interrupt came at the beginning of the lines above
            os.close(descriptor)
        raise


def patiently(call: Callable[[], _T], lock_timeout: float, cancel: CancellationToken | None = None) -> _T:
    """Make a call again for at most ``lock_timeout`` seconds, as long as what it needs is held by somebody else."""
    deadline = time.monotonic() + lock_timeout
    while True:
        try:
            return call()
        except ImageBusyError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
        if cancel is not None:
            cancel.raise_if_cancelled()
        time.sleep(min(left, _RETRY))


def open_patiently(
    open_image: Callable[[], _T], directory: Path, lock_timeout: float, cancel: CancellationToken | None = None
) -> _T:
    """Open an image for writing as :func:`patiently` does; the error names who holds which file of ``directory``."""
    try:
        return patiently(open_image, lock_timeout, cancel)
    except ImageBusyError as error:
        if error.image_file:
            name_holder(error, directory / error.image_file)
        raise


def name_holder(error: ImageBusyError, file: Path) -> None:
    """Add to the error's text which process holds the file, where the system tells."""
    holder = lock_holder(file)
    if holder is not None:
        error.reason += f" (by process {holder})"
