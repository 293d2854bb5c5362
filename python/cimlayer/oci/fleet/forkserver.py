"""The process whose forks become workers (:mod:`multiprocessing`, "forkserver"), started before they are needed."""

from __future__ import annotations

import multiprocessing
import signal

# What most layers need. The server loads it while the program that starts it does the same; no fork loads it again.
_NEEDED = ("cimlayer.oci.fleet.jobs", "cimlayer.oci.fleet.pool", "hashlib", "isal.igzip_lib")


def start() -> None:
    """Start it, where there is fork. For programs, not for libraries: a process has one server and one list for it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    from multiprocessing import forkserver, resource_tracker  # noqa: PLC0415  Windows has none

    forkserver.set_forkserver_preload(["__main__", *_NEEDED])
    resource_tracker.ensure_running()  # it unblocks the signal
    # The server ignores Ctrl-C only when it has loaded everything.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
