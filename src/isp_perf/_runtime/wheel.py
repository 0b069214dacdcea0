"""A coarse deadline wheel: one loop timer per 10 ms tick, shared by every call whose deadline falls into it.

``asyncio.timeout`` makes a timer handle, a context manager and two awaits per call. Deadlines of network calls need no
such precision, and almost none of them ever fires. Here a call puts itself into the set of its tick and takes itself
out again; the loop hears of a tick only when its first member arrives. A deadline fires at most one tick late and
never early.

The cancellation rules are those of ``asyncio.timeout``: a cancellation from outside wins over ours, nested deadlines
each answer for their own, and a body that swallows our cancellation leaves ``Task.cancelling()`` as it was.
"""

from asyncio import AbstractEventLoop, BaseEventLoop, CancelledError, Task, current_task, get_running_loop
from time import monotonic
from typing import Any
from weakref import ref

__all__ = ["TICK", "Deadline", "arm"]

TICK = 0.01
"""Seconds by which a deadline may fire late."""

_PER_SECOND = 100
_AFTER = 1.001  # the next tick, and more than the clock's resolution away


class Deadline:
    """The deadline of one call in one task. Exactly one of ``close`` and ``translate`` ends it."""

    __slots__ = ("before", "hit", "slot", "task")

    before: int
    hit: bool
    slot: set["Deadline"]
    task: Task[Any]

    def close(self) -> None:
        """End the deadline after a call that returned, even if it swallowed our cancellation."""
        self.slot.discard(self)
        if self.hit:
            self.hit = False
            self.task.uncancel()

    def translate(self, error: BaseException) -> BaseException:
        """End the deadline after a call that raised; return ``TimeoutError`` if our cancellation was the reason.

        A cancellation that also came from outside stays what it is.
        """
        self.slot.discard(self)
        if self.hit:
            self.hit = False
            if self.task.uncancel() <= self.before and isinstance(error, CancelledError):
                return TimeoutError()
        return error


class _Wheel:
    """The ticks of one event loop. It holds the loop weakly: nothing here may keep a closed loop alive."""

    __slots__ = ("clock", "loop", "slots")

    def __init__(self, loop: AbstractEventLoop) -> None:
        number = id(loop)
        # The callback runs before the number can belong to another loop.
        self.loop = ref(loop, lambda _: _wheels.pop(number, None))
        self.slots: dict[float, set[Deadline]] = {}
        # Every loop of the standard library reads this clock; calling it directly saves a frame.
        self.clock = monotonic if type(loop).time is BaseEventLoop.time else None

    def fire(self, tick: float) -> None:
        """Cancel every call whose deadline was in ``tick``."""
        for deadline in self.slots.pop(tick, ()):
            deadline.hit = True
            deadline.task.cancel()


_wheels: dict[int, _Wheel] = {}


def arm(seconds: float) -> Deadline:
    """Give the running task a deadline ``seconds`` from now.

    Raises:
        RuntimeError: there is no running event loop or no running task.
    """
    loop = get_running_loop()
    task = current_task(loop)
    if task is None:
        raise RuntimeError("a deadline needs a running task")
    wheel = _wheels.get(id(loop))
    if wheel is None:
        wheel = _wheels[id(loop)] = _Wheel(loop)
    clock = wheel.clock
    tick = (((loop.time() if clock is None else clock()) + seconds) * _PER_SECOND + _AFTER) // 1
    slot = wheel.slots.get(tick)
    if slot is None:
        slot = wheel.slots[tick] = set()
        loop.call_at(tick / _PER_SECOND, wheel.fire, tick)
    deadline = Deadline()
    deadline.task = task
    deadline.before = task.cancelling()
    deadline.hit = False
    deadline.slot = slot
    slot.add(deadline)
    return deadline
