"""Our own workers: processes of which each may die without harm to the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_EPOCH = "SOURCE_DATE_EPOCH"


class WorkerProcesses(Executor):
    """Pools of one process each.

    In a pool of several, a worker that dies takes the calls of all others with it, and nobody can say whose it was; and
    the pool cannot be used again. Here a pool that is broken is replaced. A worker ends with the process that made it.
    """

    def __init__(self, workers: int) -> None:
        """Processes are started when they are needed."""
        # A fork would copy whatever threads of this process have locked.
        methods = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        self._lock = threading.Lock()
        self._slots = [_Slot(self._new_pool()) for _ in range(workers)]

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Call a function in the process with the least to do."""
        with self._lock:
            if not self._slots:
                raise RuntimeError("the executor was shut down")
            slot = min(self._slots, key=lambda each: each.calls)
            try:
                future = slot.pool.submit(fn, *args, **kwargs)
            except BrokenProcessPool:  # its process died when it had nothing to do, or has died just now
                slot.pool.shutdown(wait=False)
                slot.pool = self._new_pool()
                future = slot.pool.submit(fn, *args, **kwargs)
            slot.calls += 1
        future.add_done_callback(lambda _: self._ended(slot))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the processes end."""
        slots, self._slots = self._slots, []
        if not slots:
            return
        with ThreadPoolExecutor(len(slots)) as all_at_once:  # each waits for its process
            for slot in slots:
                all_at_once.submit(slot.pool.shutdown, wait, cancel_futures=cancel_futures)

    def _ended(self, slot: _Slot) -> None:
        with self._lock:
            slot.calls -= 1

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, self._context, _begin_worker, (os.environ.get(_EPOCH),))


class _Slot:
    """The place of one process."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self.pool = pool
        self.calls = 0


def _begin_worker(epoch: str | None) -> None:
    """Ctrl-C is for the process that asked, which says when to stop; if it is gone, nobody does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if epoch is None:
        os.environ.pop(_EPOCH, None)  # a fork server has the environment that it was started with
    else:
        os.environ[_EPOCH] = epoch
    threading.Thread(target=_end_with_parent, name="cimlayer-parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
