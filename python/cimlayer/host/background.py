"""Going on in the background, once all that can fail is done."""

from __future__ import annotations

import os
import sys


def fork_into_background() -> bool:
    """Whether this is the new process: it has no terminal, no standard streams and no directory to keep in use.

    It must end with ``os._exit``. The process must have no other threads.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        return False
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    if null > 2:
        os.close(null)
    return True
