"""The cache over a real Redis: two managers as two processes, patterns, and an outage."""

import asyncio
from urllib.parse import urlsplit

import pytest

from isp_perf.cache import CacheManager
from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.testing import FaultProxy


@pytest.fixture
async def pools(redis_url):
    async with RedisPool(redis_url) as one, RedisPool(redis_url) as other:
        yield one, other


async def test_processes_share_values(pools):
    """What one manager loaded the other reads; invalidation by key, pattern and clear reaches Redis."""
    first, second = (CacheManager(redis=pool) for pool in pools)
    loads = []

    def make(cache):
        @cache.cached("user:{x}", ttl=60)
        async def user(x: int) -> dict[str, int]:
            loads.append(x)
            return {"id": x}

        return user

    one, other = make(first), make(second)
    assert await one(1) == await other(1) == {"id": 1}
    assert loads == [1]
    assert (await one.invalidate(1)).delivered
    assert (await first.invalidate_pattern("user:*")).delivered
    await CacheManager(redis=pools[0]).clear()
    assert await one(1) == {"id": 1}
    assert loads == [1, 1]
    await first.set_many({f"k{n}": n for n in range(50)})
    assert await second.get_many([f"k{n}" for n in range(50)]) == {f"k{n}": n for n in range(50)}


def test_plain_functions_share_values(redis_url):
    """The blocking half serves plain functions, also from a URL."""
    loads = []

    def make(cache):
        @cache.cached("n:{x}")
        def load(x: int) -> int:
            loads.append(x)
            return x

        return load

    one, other = CacheManager(redis=redis_url), CacheManager(redis=redis_url)
    assert make(one)(1) == make(other)(1) == 1
    assert loads == [1]
    asyncio.run(one.aclose())
    asyncio.run(other.aclose())


async def test_namespace_with_glob_characters_stays_apart(pools):
    """clear() of one namespace leaves another alone, whatever characters it has."""
    star, plain = CacheManager(redis=pools[0], namespace="a*"), CacheManager(redis=pools[1], namespace="ab")
    await star.set("k", 1)
    await plain.set("k", 2)
    await star.clear()
    assert await CacheManager(redis=pools[0], namespace="ab").get("k") == 2
    assert await CacheManager(redis=pools[0], namespace="a*").get("k") is None


async def test_frozen_and_refusing_redis_cost_one_wait(redis_url):
    """While Redis answers nothing, calls are served by the loader and only the first waits; later it is used again."""
    where = urlsplit(redis_url)
    with FaultProxy(where.hostname, where.port) as proxy:
        async with RedisPool(RedisSettings(url=f"redis://{proxy.host}:{proxy.port}{where.path}", timeout=0.2)) as pool:
            cache = CacheManager(redis=pool)

            @cache.cached("n:{x}")
            async def load(x: int) -> int:
                return x

            await load(0)
            loop = asyncio.get_running_loop()
            for fault in (proxy.blackhole, lambda: proxy.drop(refuse=True)):
                fault()
                started = loop.time()
                assert [await load(x) for x in range(1, 50)] == list(range(1, 50))
                receipt = await load.invalidate(0)
                assert loop.time() - started < 3
                assert receipt.queued
                proxy.heal()
                await receipt.wait(10)
                await cache.clear()
            assert cache.stats().remote_errors >= 2
            assert cache.stats().misses >= 99


@pytest.mark.parametrize("state", ["out of memory", "wrong type", "no permission", "pool busy"])
async def test_what_redis_refuses_never_reaches_a_reader(redis_url, state):
    """Whatever error Redis or the pool answers a cached call with, the caller gets the loader's value."""
    settings = RedisSettings(url=redis_url, in_flight=1, overflow="error") if state == "pool busy" else redis_url
    async with RedisPool(redis_url) as admin, RedisPool(settings) as pool:
        cache = CacheManager(redis=pool)

        @cache.cached("n:{x}")
        async def load(x: int) -> int:
            return x

        await load(0)
        client = admin.client()
        if state == "out of memory":
            await client.config_set("maxmemory", "1")
        elif state == "no permission":
            await client.execute_command("ACL", "SETUSER", "default", "-get", "-set", "-mget")
        for x in range(1, 20):
            if state == "wrong type":
                await client.lpush(f"isp:1:n:{x}", "not a string")
        try:
            assert await asyncio.gather(*(load(x) for x in range(1, 20))) == list(range(1, 20))
        finally:
            await client.config_set("maxmemory", "0")
            await client.execute_command("ACL", "SETUSER", "default", "+@all")
        assert cache.stats().remote_errors >= (state == "no permission")
