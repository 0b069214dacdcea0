"""A limit on waiting in which only the time counts that the event loop had for it.

A wall clock blames the other side for what our own loop did: where callbacks block it, or where the machine is busy,
the answer may have arrived long before anybody looks. So the time is counted in slices, each by a timer of its own, and
a slice whose timer was late counts as one slice all the same.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["patience"]

_SLICES: Final = 10


class _Slices:
    """Counts slices of time, and ends ``limit`` with the last one."""

    __slots__ = ("_left", "_limit", "_loop", "_seconds", "_timer")

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit = limit
        self._left = _SLICES
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds / _SLICES
        self._timer = self._loop.call_later(self._seconds, self._count)

    def _count(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = self._loop.call_later(self._seconds, self._count)
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
