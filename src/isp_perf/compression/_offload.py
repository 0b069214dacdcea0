"""Codec work away from the event loop: a few threads of our own, and a measure of how far behind they are."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

__all__ = ["Offload", "step_back"]

P = ParamSpec("P")
T = TypeVar("T")
_WEIGHT = 0.2
_WAIT_UNIT = 0.01
_MAX_WORKERS = 4
_NICENESS = 5


def step_back(niceness: int) -> None:
    """Lower the priority of the calling thread (Linux only, where threads have one): event loops go first.

    Args:
        niceness: 0 (as the others) to 19.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


class Offload:
    """Runs codec jobs in threads; the codecs release the GIL, so the loop goes on meanwhile.

    Where cores are scarce the loop must not wait for a codec's time slice: our threads are nicer than it.

    The threads are started by the first job, and again after a fork. Under trio, its own threads are used. A job whose
    caller is cancelled runs to its end, and its result is dropped.

    Args:
        executor: whose threads to use; ``None`` for up to 4 of our own.
    """

    __slots__ = ("_executor", "_given", "_pid", "_wait", "_workers", "pending")

    def __init__(self, executor: Executor | None = None) -> None:
        self._given = executor
        self._executor: Executor | None = None
        self._pid = 0
        self._wait = 0.0
        self._workers = min(_MAX_WORKERS, os.cpu_count() or 1)
        self.pending = 0

    @property
    def load(self) -> float:
        """Jobs waiting per thread, or the usual wait for a thread in units of 10 ms: whichever is worse."""
        waiting = max(0, self.pending - self._workers) / self._workers
        return max(waiting, self._wait / _WAIT_UNIT)

    def _threads(self) -> Executor:
        if self._given is not None:
            return self._given
        if self._executor is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self.pending = 0
            self._executor = ThreadPoolExecutor(
                self._workers, thread_name_prefix="isp_perf-codec", initializer=step_back, initargs=(_NICENESS,)
            )
        return self._executor

    async def run(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``job`` in a thread and return what it returns; errors of the job pass through."""
        call = partial(job, *args, **kwargs)
        submitted = perf_counter()
        executor = self._threads()
        self.pending += 1
        try:
            started, result = await _in_thread(executor, call)
        finally:
            self.pending -= 1
        self._wait += _WEIGHT * (max(0.0, started - submitted) - self._wait)
        return result

    def close(self) -> None:
        """Let our own threads end once their jobs are done; a later job starts new ones."""
        executor, self._executor = self._executor, None
        if executor is not None and self._pid == os.getpid():
            executor.shutdown(wait=False, cancel_futures=True)


def _stamped(call: Callable[[], T]) -> tuple[float, T]:
    return perf_counter(), call()


async def _in_thread(executor: Executor, call: Callable[[], T]) -> tuple[float, T]:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return await _in_foreign_thread(call)
    try:
        future = loop.run_in_executor(executor, _stamped, call)
    except RuntimeError:  # the executor was shut down: late, but not lost
        return _stamped(call)
    return await future


async def _in_foreign_thread(call: Callable[[], T]) -> tuple[float, T]:
    """Run in a thread of trio, which is loaded already if its loop is running; else here and now."""
    trio: Any = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_task():
        return _stamped(call)
    result: tuple[float, T] = await trio.to_thread.run_sync(_stamped, call, abandon_on_cancel=True)
    return result
