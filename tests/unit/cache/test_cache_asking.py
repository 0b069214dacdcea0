"""Leases of cancelled tasks: whoever comes next does not wait for them."""

import asyncio

import pytest

from isp_perf.cache import CacheManager, _asking
from isp_perf.testing import MemoryLevel
from isp_perf.typing import Fill


@pytest.fixture
async def shared():
    """A level, a cached function over it, and what it has loaded."""
    level, loads = MemoryLevel(), []
    cache = CacheManager(redis=level)

    @cache.cached("x:{key}", ttl=60)
    async def read(key: str) -> str:
        loads.append(key)
        return key

    await read("warm")
    yield level, read, loads
    await cache.aclose()


async def questions(level, read, key):
    """Read ``key`` and return how many questions that took."""
    asked = level.asked["Lease"]
    assert await read(key) == key
    return level.asked["Lease"] - asked


async def test_a_lease_that_was_granted_to_a_cancelled_task_is_taken_over(shared, monkeypatch):
    """Cancelled between the answer and its own turn, a task leaves its lease to the next reader."""
    level, read, loads = shared
    tasks = []
    hand_out = _asking._Batch.hand_out

    def cancelling(batch, replies):
        hand_out(batch, replies)
        tasks[1].cancel()

    monkeypatch.setattr(_asking._Batch, "hand_out", cancelling)
    tasks += [asyncio.create_task(read(key)) for key in ("a", "b")]
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert (ends[0], type(ends[1])) == ("a", asyncio.CancelledError)
    monkeypatch.undo()
    assert await questions(level, read, "b") == 1
    assert loads == ["warm", "a", "b"]


async def test_a_lease_whose_fill_was_cancelled_is_taken_over(shared):
    """Cancelled while its value is on the way, a task leaves a lease that still stands to the next reader."""
    level, read, loads = shared

    async def before(orders):
        if isinstance(orders[0], Fill) and not task.cancelling():
            task.cancel()
            await asyncio.sleep(0)

    level.before = before
    task = asyncio.create_task(read("a"))
    with pytest.raises(asyncio.CancelledError):
        await task
    level.before = None
    assert await questions(level, read, "a") == 1
    assert loads == ["warm", "a", "a"]
