"""A limit on loads while the remote level is out of use, so that the database survives the cache's death."""

from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final
from weakref import WeakKeyDictionary

from isp_perf._runtime.flights import TaskWaiter, ThreadWaiter, Waiter

__all__ = ["MOST_LOADS", "Gate"]

MOST_LOADS: Final = 32
"""Loads of one function that may run at a time while the remote level is out of use."""


class _Queue:
    """The loads of one function: how many run, and who waits, in order."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[Waiter] = deque()


class Gate:
    """Counts loads per function, and lets at most 32 run at a time; the others wait in order.

    Args:
        lock: guards it.
    """

    __slots__ = ("_lock", "_queues")

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._queues: WeakKeyDictionary[Any, _Queue] = WeakKeyDictionary()

    def enter(self, function: object, *, tasks: bool) -> Generator[Callable[[], Any], Any, None]:
        """Wait for a place; whoever gets one calls ``leave``."""
        with self._lock:
            queue = self._queues.setdefault(function, _Queue())
            if queue.running < MOST_LOADS:
                queue.running += 1
                return
            waiter: Waiter = TaskWaiter() if tasks else ThreadWaiter()
            queue.waiting.append(waiter)
        try:
            yield waiter.wait
        except BaseException:
            with self._lock:
                if waiter in queue.waiting:
                    queue.waiting.remove(waiter)
                else:  # given a place in the same moment
                    _pass_on_locked(queue)
            raise

    def leave(self, function: object) -> None:
        """Give the place to the next one."""
        with self._lock:
            _pass_on_locked(self._queues[function])

    def running(self, function: object) -> int:
        """Return how many loads of ``function`` run now under the limit."""
        queue = self._queues.get(function)
        return 0 if queue is None else queue.running


def _pass_on_locked(queue: _Queue) -> None:
    while queue.waiting:
        if queue.waiting.popleft().wake(None):
            return
    queue.running -= 1
