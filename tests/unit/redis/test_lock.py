"""The lock alone, with a clock that is moved by hand."""

import asyncio

import pytest

from isp_perf.errors import NotSentError
from isp_perf.redis._lock import LockLostError, RedisLock
from isp_perf.testing import ManualClock


class SlowServer:
    """Gives the lock after three seconds, and cannot be reached afterwards."""

    def __init__(self, clock):
        self.clock = clock
        self.given = False

    async def ask(self, *_args):
        if self.given:
            raise NotSentError("gone")
        self.given = True
        self.clock.advance(3.0)
        return 1


async def test_the_time_of_a_lock_begins_when_it_was_asked_for(monkeypatch):
    """Its ttl may have begun at the server by then: the body never works longer than that without word of it."""
    clock = ManualClock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    worked = []

    async def work():
        async with RedisLock(SlowServer(clock), "job", 10.0, home=None):
            while clock() < 20.0:
                worked.append(clock())
                clock.advance(0.5)
                for _ in range(10):
                    await asyncio.sleep(0)

    with pytest.raises(LockLostError):
        await work()
    assert 9.0 <= worked[-1] < 10.0
