"""A limit on waiting in which only the time counts that the event loop had for it.

A wall clock blames the other side for what our own loop did: where callbacks block it, or where the machine is busy,
the answer may have arrived long before anybody looks. So the time is counted in slices, each by a timer of its own. A
slice whose timer was late by another slice gave the loop one turn and no time: it counts for an eighth, since what is
waited for, a handshake for example, may take a turn for each of its steps.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["patience"]

_SLICES: Final = 10
_WHOLE: Final = 8  # a late slice counts for one


class _Slices:
    """Counts slices of time, and ends ``limit`` with the last one."""

    __slots__ = ("_due", "_left", "_limit", "_loop", "_seconds", "_timer")

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit = limit
        self._left = _SLICES * _WHOLE
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds / _SLICES
        self._begin()

    def _begin(self) -> None:
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._count)

    def _count(self) -> None:
        late = self._loop.time() - self._due
        self._left -= _WHOLE if late < self._seconds else 1
        if self._left > 0:
            self._begin()
        else:
            self._limit.reschedule(self._loop.time())

    def end(self) -> None:
        self._timer.cancel()


@asynccontextmanager
async def patience(seconds: float) -> AsyncGenerator[None, None]:
    """Return a context that ends with ``TimeoutError`` when the loop had ``seconds`` for what is inside.

    In a loop that is never late that is after ``seconds``, as with ``asyncio.timeout``.
    """
    async with asyncio.timeout(None) as limit:
        slices = _Slices(limit, seconds)
        try:
            yield
        finally:
            slices.end()
