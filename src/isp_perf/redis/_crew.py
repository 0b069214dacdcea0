"""Threads that ask several nodes of a cluster at one time, on behalf of a thread that has no event loop."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

__all__ = ["Crew"]

_MOST = 32  # calls at one time, over all batches of all threads; further ones wait for their turn


class Crew:
    """Threads that are started with the first batch that concerns several nodes, and kept for the next.

    A forked child makes a new one: threads are not inherited.
    """

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_MOST, thread_name_prefix="isp_perf-cluster")

    def at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Return the results of calls made at the same time, the last one by the caller itself."""
        started = [self._threads.submit(call) for call in calls[:-1]]
        last = [call() for call in calls[-1:]]
        return [*(future.result() for future in started), *last]
