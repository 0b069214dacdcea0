"""Where nothing can be tracked, changes are heard of by pub/sub: real servers, RESP2."""

import asyncio
import threading
import time
from urllib.parse import urlsplit

import pytest

from isp_perf.cache import CacheManager
from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.testing import FaultProxy


async def until(condition, seconds=20.0):
    """Wait until ``condition`` holds."""
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


class Truth:
    """A database of one value per key."""

    def __init__(self):
        self.values, self.loads = {}, 0

    def cached(self, cache, **policy):
        @cache.cached("x:{key}", ttl=60, **policy)
        async def read(key: str) -> int:
            self.loads += 1
            return self.values.get(key, 0)

        return read


async def becomes(read, value):
    """Wait until ``k`` reads as ``value``, and see that it stays so."""
    for _ in range(4000):
        if await read("k") == value:
            break
        await asyncio.sleep(0.005)
    assert await read("k") == value


async def ready(cache, read):
    """Use the cache until it hears of changes."""
    await read("first")
    await until(lambda: cache.health().l1_trusted and cache.health().l2 == "up")


def channel(cache):
    return cache.health().channel


@pytest.fixture
async def managers(redis_url):
    """A manager that cannot track, behind a proxy, and one that can."""
    where = urlsplit(redis_url)
    with FaultProxy(where.hostname, where.port) as proxy:
        url = f"redis://{proxy.host}:{proxy.port}{where.path}"
        async with RedisPool(RedisSettings(url=url, protocol=2)) as old, RedisPool(redis_url) as new:
            told, tracked = CacheManager(redis=old), CacheManager(redis=new)
            yield told, tracked, proxy
            await told.aclose()
            await tracked.aclose()


@pytest.mark.both_servers
async def test_the_local_level_lives_by_news(managers):
    """Values are kept locally, our own fills do not remove them, and removals by others arrive at once."""
    told, tracked, _ = managers
    truth = Truth()
    here, there = truth.cached(told), truth.cached(tracked)
    await ready(told, here)
    assert (channel(told), channel(tracked)) != ("none", "none")
    assert channel(told) == "pubsub"
    for number in range(1, 10):
        truth.values["k"] = number
        assert (await there.invalidate("k")).delivered
        await becomes(here, number)
    assert here.stats.l1_hits > 0
    assert told.health().remote_errors == 0


REMOVALS = {
    "tag": lambda cache, read: cache.invalidate_tags("numbers"),
    "clear": lambda cache, read: cache.clear(),
    "pattern": lambda cache, read: cache.invalidate_pattern("x:*"),
    "key": lambda cache, read: read.invalidate("k"),
}


@pytest.mark.parametrize("how", REMOVALS)
@pytest.mark.parametrize("writer", ["told", "tracked"])
async def test_every_way_to_remove_is_news(managers, how, writer):
    """Keys, tags, patterns and a clear reach the local level that hears by pub/sub, whoever removes."""
    told, tracked, _ = managers
    truth = Truth()
    here, there = (truth.cached(cache, tags=["numbers"]) for cache in (told, tracked))
    await ready(told, here)
    await here("k")
    await here("k")
    truth.values["k"] = 1
    cache, read = (told, here) if writer == "told" else (tracked, there)
    await REMOVALS[how](cache, read)
    await becomes(here, 1)
    await becomes(there, 1)


async def test_a_write_intent_is_news(managers):
    """An intent empties the local level before the commit, and its end lets new values in."""
    told, tracked, _ = managers
    truth = Truth()
    here, there = truth.cached(told), truth.cached(tracked)
    await ready(told, here)
    await here("k")
    async with tracked.writing(there.key("k")):
        truth.values["k"] = 1
        await becomes(here, 1)
        truth.values["k"] = 2
    await becomes(here, 2)


async def test_a_silent_subscription_is_a_lost_one(managers, redis_url):
    """When the subscription ends or says nothing more, the local level is dropped, reads go on, and it comes back."""
    told, tracked, _ = managers
    truth = Truth()
    here, there = truth.cached(told), truth.cached(tracked)
    await ready(told, here)
    bulletin = told._engine.second._home.channel._bulletin
    async with RedisPool(redis_url) as admin:
        for number, silence in enumerate(("ended", "silent"), 1):
            await here("k")
            if silence == "ended":
                await admin.client().execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            else:  # what was published elsewhere does not come back on this subscription
                bulletin.sender = b"somebody"
            truth.values["k"] = number
            await there.invalidate("k")
            await becomes(here, number)
            bulletin.sender = b"ourselves"[:8]
            await until(lambda: told.health().l1_trusted and told.health().l2 == "up")


async def test_lost_connections_drop_the_local_level(managers):
    """Whatever was missed while no connection stood is not served: reads are right at once, and it recovers."""
    told, tracked, proxy = managers
    truth = Truth()
    here, there = truth.cached(told), truth.cached(tracked)
    await ready(told, here)
    for number in range(1, 4):
        await here("k")
        proxy.blackhole()
        truth.values["k"] = number
        await there.invalidate("k")
        await becomes(here, number)
        proxy.drop(refuse=True)
        proxy.heal()
        await until(lambda: told.health().l1_trusted and told.health().l2 == "up")
        assert channel(told) == "pubsub"


async def test_waiters_of_both_kinds_load_once(managers):
    """One load for both processes, whichever of them leads; those who wait get what it stored."""
    told, tracked, _ = managers
    loads = []

    def slow(cache):
        @cache.cached("slow:{key}")
        async def read(key: str) -> str:
            loads.append(key)
            await asyncio.sleep(0.05)
            return key

        return read

    here, there = slow(told), slow(tracked)
    await asyncio.gather(here("a"), there("a"))
    await until(lambda: told.health().l1_trusted)
    await asyncio.wait_for(asyncio.gather(*(read("b") for read in (here, there) for _ in range(50))), 20)
    assert sorted(loads) == ["a", "b"]


def test_threads_hear_news_too(redis_url):
    """Plain functions over RESP2: values are kept locally, and what another manager removes is gone in time."""
    cache, other = (CacheManager(redis=RedisPool(RedisSettings(url=redis_url, protocol=2))) for _ in range(2))
    values = {}

    def cached(manager):
        @manager.cached("x:{key}", ttl=60)
        def read(key: str) -> int:
            return values.get(key, 0)

        return read

    here, there = cached(cache), cached(other)
    here("k")
    deadline = time.monotonic() + 20
    while not cache.health().l1_trusted:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    assert cache.health().channel == "pubsub"
    for number in range(1, 6):
        values["k"] = number
        there.invalidate("k")
        since = time.perf_counter()
        while here("k") != number:
            threading.Event().wait(0.001)  # a thread that never waits keeps the others from running
            assert time.perf_counter() - since < 20
        here("k")
    assert here.stats.l1_hits > 0
    asyncio.run(cache.aclose())
    asyncio.run(other.aclose())
