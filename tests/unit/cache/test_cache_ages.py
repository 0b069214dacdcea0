"""Stale values, early refresh, timeouts and cached errors, in both colours."""

import asyncio
import threading
import time

import pytest

from isp_perf.cache import CacheManager, CachePolicy
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock


class Source:
    """A loader whose value and faults are set from outside."""

    def __init__(self):
        self.loads = 0
        self.error = None
        self.gate = None

    async def load(self, x: int):
        self.loads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.loads


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def cache(clock):
    return CacheManager(clock=clock)


@pytest.fixture
def source():
    return Source()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_stale_while_revalidate_serves_and_refreshes_once(cache, clock, source):
    """After the ttl the old value comes at once, one load runs in the background, then the new value comes."""
    load = cache.cached("x:{x}", ttl=10, stale_while_revalidate=5)(source.load)
    assert await load(1) == 1
    clock.advance(10)
    source.gate = asyncio.Event()
    assert [await load(1) for _ in range(5)] == [1] * 5
    await settle()
    assert source.loads == 2
    source.gate.set()
    await settle()
    assert await load(1) == 2
    assert load.stats.stale_hits == 5
    assert load.stats.hits == 6


async def test_after_the_stale_time_callers_wait(cache, clock, source):
    """When the stale time is over, too, nothing old is returned."""
    load = cache.cached("x:{x}", ttl=10, stale_while_revalidate=5)(source.load)
    await load(1)
    clock.advance(15)
    assert await load(1) == 2


async def test_invalidated_values_are_never_stale_values(cache, clock, source):
    """After an invalidation neither stale window serves the old value."""
    load = cache.cached("x:{x}", ttl=10, stale_while_revalidate=50, stale_if_error=50)(source.load)
    await load(1)
    clock.advance(11)
    await load.invalidate(1)
    source.error = ValueError("down")
    with pytest.raises(ValueError, match="down"):
        await load(1)


async def test_stale_if_error_with_throttled_attempts(cache, clock, source):
    """While the loader fails the old value stands in, and the loader is tried every min(1 s, ttl/10)."""
    load = cache.cached("x:{x}", ttl=10, stale_if_error=100)(source.load)
    assert await load(1) == 1
    clock.advance(10)
    source.error = ValueError("down")
    assert [await load(1) for _ in range(5)] == [1] * 5
    assert source.loads == 2
    clock.advance(1)
    assert await load(1) == 1
    assert source.loads == 3
    source.error = None
    clock.advance(1)
    assert await load(1) == 4
    clock.advance(110)
    source.error = ValueError("down again")
    with pytest.raises(ValueError, match="down again"):
        await load(1)


async def test_stale_value_stands_in_for_every_waiter(cache, clock, source):
    """All callers that shared a failed load get the stale value."""
    load = cache.cached("x:{x}", ttl=10, stale_if_error=100)(source.load)
    await load(1)
    clock.advance(10)
    source.error, source.gate = ValueError("down"), asyncio.Event()
    calls = [asyncio.create_task(load(1)) for _ in range(5)]
    await settle()
    source.gate.set()
    assert await asyncio.gather(*calls) == [1] * 5
    assert source.loads == 2


async def test_early_refresh_by_share(cache, clock, source):
    """After the share of the ttl one caller starts a refresh, and nobody waits."""
    load = cache.cached("x:{x}", ttl=10, early_refresh=0.8)(source.load)
    await load(1)
    clock.advance(7.9)
    await load(1)
    await settle()
    assert source.loads == 1
    clock.advance(0.1)
    assert await load(1) == 1
    await settle()
    assert source.loads == 2
    assert await load(1) == 2
    assert load.stats.stale_hits == 0


async def test_xfetch_draws_one_moment_per_entry(cache, clock):
    """With xfetch the refresh begins before the end, the earlier the longer a load takes."""

    @cache.cached("x:{x}", ttl=100, early_refresh="xfetch")
    async def load(x: int):
        clock.advance(5)
        return x

    for x in range(200):
        await load(x)
    moments = [entry.life.fresh_until - entry.life.refresh_at for entry in cache._engine.local.living_locked()]
    assert all(0 <= moment <= 100 for moment in moments)
    assert 3 < sum(moments) / len(moments) < 7


async def test_soft_timeout_gives_the_stale_value_and_the_load_goes_on(cache, clock, source):
    """After soft_timeout the caller gets the old value; the load is finished and stored."""
    load = cache.cached("x:{x}", ttl=10, stale_if_error=100, soft_timeout=0.01)(source.load)
    assert await load(1) == 1
    clock.advance(10)
    source.gate = asyncio.Event()
    assert await load(1) == 1
    source.gate.set()
    await settle()
    assert await load(1) == 2
    assert source.loads == 2


async def test_soft_timeout_without_a_stale_value_waits(cache, source):
    """Without a stale value the caller waits on."""
    load = cache.cached("x:{x}", ttl=10, soft_timeout=0.001)(source.load)
    source.gate = asyncio.Event()
    call = asyncio.create_task(load(1))
    await asyncio.sleep(0.02)
    assert not call.done()
    source.gate.set()
    assert await call == 1


async def test_hard_timeout_ends_the_wait_and_the_lonely_load(cache, source):
    """After hard_timeout the caller gets TimeoutError, and a load that nobody waits for is cancelled."""
    load = cache.cached("x:{x}", ttl=10, hard_timeout=0.01)(source.load)
    source.gate = asyncio.Event()
    with pytest.raises(TimeoutError, match="took longer than its hard_timeout"):
        await load(1)
    source.gate.set()
    await settle()
    assert await load.peek(1) is None
    source.gate = None
    assert await load(1) == 2


async def test_hard_timeout_of_one_leaves_the_load_to_others(cache, source):
    """The load goes on for those who came later."""
    load = cache.cached("x:{x}", ttl=10, hard_timeout=0.05)(source.load)
    source.gate = asyncio.Event()
    first = asyncio.create_task(load(1))
    await asyncio.sleep(0.03)
    second = asyncio.create_task(load(1))
    with pytest.raises(TimeoutError):
        await first
    source.gate.set()
    assert await second == 1
    assert source.loads == 1


async def test_errors_may_be_cached(cache, clock, source):
    """A listed error is raised again for its time without a load, each time as a new object."""
    load = cache.cached("x:{x}", cache_errors={LookupError: 30})(source.load)
    source.error = KeyError("absent")
    caught = []
    for _ in range(3):
        with pytest.raises(KeyError) as error:
            await load(1)
        caught.append(error.value)
    assert source.loads == 1
    assert len(set(map(id, caught))) == 3
    assert await load.peek(1, default="nothing") == "nothing"
    clock.advance(30)
    source.error = None
    assert await load(1) == 2
    source.error = ValueError("not listed")
    for _ in range(2):
        with pytest.raises(ValueError, match="not listed"):
            await load(2)
    assert source.loads == 4


def test_plain_functions_refresh_and_time_out_in_threads(clock):
    """Stale values, background refresh and timeouts work for plain functions."""
    cache = CacheManager(clock=clock)
    go, loads = threading.Event(), []
    go.set()

    @cache.cached("x:{x}", ttl=10, stale_while_revalidate=100, hard_timeout=0.05)
    def load(x: int):
        loads.append(x)
        go.wait()
        return len(loads)

    assert load(1) == 1
    clock.advance(10)
    assert load(1) == 1
    deadline = time.monotonic() + 5
    while load(1) == 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert load(1) == 2
    go.clear()
    with pytest.raises(TimeoutError):
        load(2)
    go.set()


def test_stale_with_the_real_clock(source):
    """With the reaper, an entry leaves the wrapper's sight at the end of its ttl and the memory at its stale end."""
    cache = CacheManager()
    loads = []

    @cache.cached("x:{x}", ttl=0.3, stale_if_error=0.3)
    def load(x: int):
        loads.append(x)
        if len(loads) > 1:
            raise ValueError
        return x

    started = time.monotonic()
    load(1)
    while len(loads) == 1:
        assert load(1) == 1
        time.sleep(0.001)
    assert 0.25 < time.monotonic() - started < 0.5
    deadline = time.monotonic() + 5
    while cache.stats().l1_size and time.monotonic() < deadline:
        time.sleep(0.005)
    assert cache.stats().l1_size == 0


@pytest.mark.parametrize(
    "options",
    [
        {"stale_while_revalidate": -1},
        {"stale_if_error": float("inf")},
        {"early_refresh": 1.5},
        {"early_refresh": "always"},
        {"early_refresh": True},
        {"soft_timeout": -1},
        {"hard_timeout": "1"},
        {"cache_errors": {ValueError: -1}},
    ],
)
def test_bad_ages_are_refused(options):
    """Each duration and share out of range is a ConfigurationError with its name."""
    with pytest.raises(ConfigurationError) as caught:
        CachePolicy(**options)
    assert caught.value.setting.startswith(next(iter(options)))
