"""How who waits for a lock hears that it is free: from the server's own push, and by looking now and then.

All waiters of one event loop share one link to each server, on which the server announces every change of a lock
(client-side caching in broadcast mode, RESP3). Where it cannot, or the link is down, waiters look more often.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from redis.exceptions import ResponseError

from isp_perf._core.backoff import full_jitter
from isp_perf.errors import RemoteError
from isp_perf.redis._lane import Hooks

if TYPE_CHECKING:
    from isp_perf.redis._lane import Lane
    from isp_perf.redis._state import LoopState

__all__ = ["LOCK_PREFIX", "Waiter", "waiting_for"]

LOCK_PREFIX: Final = "lock:{"
_HANDSHAKE: Final = (("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", LOCK_PREFIX),)
_PURPOSE: Final = "locks"
_UNTOLD: Final = (0.01, 0.25)  # seconds between two looks without pushes: ceilings of the first wait and of every wait
_TOLD: Final = (0.5, 1.0)  # the same with pushes, for a lock whose expiry the server has not noticed yet
_RESP2: Final = 2
_draw = SystemRandom().random


class _Ear:
    """The link of one event loop to one server that tells of locks; it lives while somebody waits.

    Args:
        state: the lanes of the loop to the server.
    """

    def __init__(self, state: "LoopState") -> None:
        self.waiters: set[Waiter] = set()
        self.lane: Lane = state.open_lane(_PURPOSE, Hooks(_HANDSHAKE, self._heard, on_lost=self._wake_all))

    def _heard(self, push: Sequence[Any]) -> None:
        if push[0] != b"invalidate":
            return
        changed: set[bytes] | None = None if push[1] is None else set(push[1])
        for waiter in self.waiters:
            if changed is None or waiter.key in changed:
                waiter.event.set()

    def _wake_all(self) -> None:
        for waiter in self.waiters:
            waiter.event.set()


_ears: "WeakKeyDictionary[LoopState, _Ear]" = WeakKeyDictionary()
_deaf: "WeakKeyDictionary[LoopState, bool]" = WeakKeyDictionary()


class Waiter:
    """One task that waits for one lock.

    Args:
        key: the lock's key.
        lane: the link that tells of it, if there is one.
    """

    __slots__ = ("_attempt", "_lane", "event", "key")

    event: asyncio.Event
    key: bytes

    def __init__(self, key: bytes, lane: "Lane | None") -> None:
        self.event = asyncio.Event()
        self.key = key
        self._attempt = 0
        self._lane = lane

    def look(self) -> None:
        """The lock is looked at now; what changes from here on ends the next pause."""
        self.event.clear()

    async def pause(self) -> None:
        """Wait until the lock may have become free."""
        first, longest = _UNTOLD if self._lane is None or self._lane.link is None else _TOLD
        delay = full_jitter(first, longest, attempt=self._attempt, draw=_draw())
        self._attempt += 1
        try:
            async with asyncio.timeout(delay):
                await self.event.wait()
        except TimeoutError:
            return


@asynccontextmanager
async def waiting_for(key: str, state: "LoopState", *, protocol: int) -> AsyncGenerator[Waiter, None]:
    """Hear of the changes of a lock's key.

    Args:
        key: the lock's key.
        state: the lanes of the running loop to its server.
        protocol: RESP version; pushes need 3.
    """
    if protocol == _RESP2 or state in _deaf:
        yield Waiter(key.encode(), None)
        return
    ear = _ears.get(state)
    if ear is None:
        ear = _ears[state] = _Ear(state)
    waiter = Waiter(key.encode(), ear.lane)
    ear.waiters.add(waiter)
    try:
        await _connect(ear, state)
        yield waiter
    finally:
        ear.waiters.discard(waiter)
        if not ear.waiters:
            _end(ear, state)


async def _connect(ear: _Ear, state: "LoopState") -> None:
    """Have the link opened; a server that refuses to tell is not asked again in this event loop."""
    try:
        await ear.lane.acquire("lock", state.loop.time() + 1.0)
    except RemoteError:
        if isinstance(ear.lane.down, ResponseError):
            _deaf[state] = True
            _end(ear, state)


def _end(ear: _Ear, state: "LoopState") -> None:
    if _ears.get(state) is ear:
        del _ears[state]
        state.close_lane(ear.lane)
