"""Many processes and one truth: leases, invalidation across processes, trust in the local level, write intents."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from urllib.parse import urlsplit

import pytest

from isp_perf.cache import CacheManager, _upkeep
from isp_perf.redis import RedisPool
from isp_perf.testing import FaultProxy


@pytest.fixture
async def managers(redis_url):
    """Two managers with pools of their own: two processes, as far as the server can tell."""
    async with RedisPool(redis_url) as one, RedisPool(redis_url) as other:
        first, second = CacheManager("first", redis=one), CacheManager("second", redis=other)
        yield first, second
        await first.aclose()
        await second.aclose()


async def until(condition, seconds=5.0):
    """Wait until ``condition`` holds."""
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


async def test_a_closed_pool_is_no_outage(redis_url, caplog):
    """Closing the pool ends the channel without a word; the next use opens another one."""
    async with RedisPool(redis_url) as pool:
        cache = CacheManager(redis=pool)
        read = Truth().cached(cache)
        await read("k")
        await pool.aclose()
        await asyncio.sleep(0.05)
        assert caplog.records == []
        assert await read("k") == await read("k") == 0
        assert (cache.health().l2, cache.health().channel) == ("up", "tracking")
        await cache.aclose()


class Truth:
    """A database of one value per key, read slowly."""

    def __init__(self, seconds=0.0):
        self.values = {}
        self.seconds = seconds
        self.loads = 0

    def cached(self, cache, **policy):
        @cache.cached("x:{key}", ttl=60, **policy)
        async def read(key: str) -> int:
            self.loads += 1
            value = self.values.get(key, 0)
            await asyncio.sleep(self.seconds)
            return value

        return read


@pytest.mark.both_servers
@pytest.mark.parametrize("max_stale", [0.1, 0])
async def test_slow_load_against_invalidation_is_never_stored_nor_joined(managers, max_stale):
    """A load begun before a write is not joined by who asks after it, and stored in neither level, in no process."""
    truth = Truth(0.02)
    one, other = (truth.cached(manager, max_stale=max_stale) for manager in managers)
    for number in range(20):
        key = f"k{number}"
        slow = asyncio.create_task(one(key))
        await asyncio.sleep(0.005 * (number % 4))
        writer, reader = ((one, other), (other, one), (one, one), (other, other))[number % 4]
        truth.values[key] = 1
        assert (await writer.invalidate(key)).delivered
        assert await reader(key) == 1, "joined an older load"
        await slow
        await asyncio.sleep(0.002)
        assert (await one(key), await other(key)) == (1, 1)


@pytest.mark.both_servers
async def test_an_invalidation_reaches_the_other_local_level_at_once(managers):
    """Nothing older is read elsewhere than max_stale allows; in practice it is a millisecond."""
    truth = Truth()
    one, other = (truth.cached(manager) for manager in managers)
    lags = []
    for number in range(1, 60):
        assert await one("k") == await other("k")
        assert await other("k") == truth.values.get("k", 0)
        truth.values["k"] = number
        await one.invalidate("k")
        acknowledged = time.perf_counter()
        while await other("k") != number:
            assert time.perf_counter() - acknowledged < 0.1
        lags.append(time.perf_counter() - acknowledged)
    assert sorted(lags)[len(lags) // 2] < 0.05
    assert other.stats.l1_hits > 0


@pytest.mark.both_servers
async def test_a_write_by_another_program_is_seen(managers, redis_url):
    """Deleting the key, FLUSHALL, or expiry in Redis empties the local levels too."""
    truth = Truth()
    read = truth.cached(managers[0])
    async with RedisPool(redis_url) as pool:
        for number, remove in enumerate((lambda: pool.delete("isp:1:x:k"), pool.client().flushall)):
            await read("k")
            await read("k")
            truth.values["k"] = number + 1
            await remove()
            await until(lambda: managers[0].stats().l1_size == 0)
            assert await read("k") == number + 1


@pytest.mark.both_servers
async def test_a_tag_and_a_clear_reach_the_other_local_level(managers):
    """Tags and clear() work across processes, also for what only the local levels are asked for."""
    loads = []

    def make(manager):
        @manager.cached("bill:{customer}", ttl=60, tags=["customer:{customer}"])
        async def bill(customer: str) -> int:
            loads.append(customer)
            return len(loads)

        return bill

    one, other = map(make, managers)
    for _ in range(3):
        assert [await one("ana"), await other("ana"), await other("bob")] == [1, 1, 2]
    await managers[0].invalidate_tags("customer:ana")
    await asyncio.sleep(0.01)
    assert await other("ana") == 3
    assert await other("bob") == 2
    await managers[1].clear()
    await asyncio.sleep(0.01)
    assert await one("bob") == 4
    assert await one("ana") == await other("ana") == 5


async def test_concurrent_misses_of_a_tick_are_one_question(managers, redis_url):
    """A hundred keys that nobody has are asked for with one script call."""
    truth = Truth()
    read = truth.cached(managers[0])
    await read("warm")
    async with RedisPool(redis_url) as pool:
        client = pool.client()
        before = (await client.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
        assert await asyncio.gather(*(read(f"k{number}") for number in range(100))) == [0] * 100
        after = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before <= 2


async def test_two_managers_with_many_callers_load_once(managers):
    """250 callers in each of two processes share one load, and the slowest waits little longer than it takes."""
    truth = Truth(0.05)
    one, other = (truth.cached(manager) for manager in managers)
    await asyncio.gather(one("warm"), other("warm"))
    truth.loads = 0
    assert set(await asyncio.gather(*(read("cold") for read in (one, other) for _ in range(250)))) == {0}
    assert truth.loads == 1


async def test_a_load_that_outlives_its_lease_is_still_the_only_one(managers):
    """A lease is renewed while its loader runs, so that nobody else begins."""
    truth = Truth(2.4)
    one, other = (truth.cached(manager) for manager in managers)
    first = asyncio.create_task(one("k"))
    await asyncio.sleep(0.1)
    assert await other("k") == 0
    assert await first == 0
    assert truth.loads == 1


@pytest.mark.both_servers
async def test_a_failed_or_cancelled_load_gives_its_lease_back(managers):
    """The next load begins at once, not when the lease of one that failed or was cancelled ends."""
    one = managers[0]
    attempts = []

    def make(manager):
        @manager.cached("y:{key}")
        async def load(key: str) -> str:
            attempts.append(key)
            if len(attempts) == 1:
                raise LookupError
            if len(attempts) == 2:
                await asyncio.sleep(60)
            return "value"

        return load

    load, elsewhere = make(one), make(managers[1])
    with pytest.raises(LookupError):
        await load("k")
    hangs = asyncio.create_task(load("k"))
    await until(lambda: len(attempts) == 2)
    hangs.cancel()
    await asyncio.gather(hangs, return_exceptions=True)
    started = time.perf_counter()
    assert await elsewhere("k") == "value"
    assert time.perf_counter() - started < 1
    assert one._engine.second.held == {}


@pytest.mark.both_servers
async def test_write_intent_keeps_readers_past_the_key(managers):
    """Between the intent and the commit nobody stores; afterwards everybody reads the new value."""
    truth = Truth()
    one, other = (truth.cached(manager) for manager in managers)
    await one("k")
    await other("k")
    async with managers[0].writing("x:k") as intent:
        assert intent.delivered
        await asyncio.sleep(0.01)
        before = truth.loads
        assert [await other("k"), await other("k"), await one("k")] == [0, 0, 0]
        assert truth.loads == before + 3
        truth.values["k"] = 1
    assert [await one("k"), await other("k")] == [1, 1]
    with contextlib.suppress(RuntimeError):
        async with managers[1].writing("x:k"):
            truth.values["k"] = 2
            raise RuntimeError
    assert await one("k") == 2


async def test_two_writers_of_one_key(managers):
    """The intent of one writer outlives the commit and the invalidation of another."""
    truth = Truth()
    read = truth.cached(managers[0])
    async with managers[0].writing("x:k"):
        async with managers[1].writing("x:k"):
            pass
        await managers[1].invalidate("x:k")
        await read("k")
        loads = truth.loads
        await read("k")
        assert truth.loads == loads + 1
    await read("k")
    loads = truth.loads
    await read("k")
    assert truth.loads == loads


async def test_schemas_of_a_rolling_deploy_hear_of_each_other(redis_url, monkeypatch):
    """An invalidation reaches the key under every schema that a living manager uses."""
    monkeypatch.setattr(_upkeep, "_ANNOUNCE_SECONDS", 0.05)
    async with RedisPool(redis_url) as pool:
        old, new = (CacheManager(redis=pool, schema=schema) for schema in (1, 2))
        truth = Truth()
        reads = [truth.cached(manager) for manager in (old, new)]
        for read in reads:
            await read("k")
        await until(lambda: old._engine.second.schemas == new._engine.second.schemas == {"1", "2"}, 15)
        truth.values["k"] = 1
        await reads[0].invalidate("k")
        await asyncio.sleep(0.01)
        assert [await read("k") for read in reads] == [1, 1]
        for manager in (old, new):
            await manager.aclose()


async def test_the_local_level_distrusts_itself_when_the_channel_is_silent(redis_url):
    """Without a sign of life for max_stale nothing of the local level is served; after one it is, whole."""
    where = urlsplit(redis_url)
    with FaultProxy(where.hostname, where.port) as proxy:
        async with RedisPool(f"redis://{proxy.host}:{proxy.port}{where.path}") as pool, RedisPool(redis_url) as direct:
            cache, writer = CacheManager(redis=pool), CacheManager(redis=direct)
            truth = Truth()
            read, write = truth.cached(cache), truth.cached(writer)
            await read("k")
            await read("k")
            assert cache.health().l1_trusted
            proxy.blackhole()
            truth.values["k"] = 1
            await write.invalidate("k")
            await asyncio.sleep(0.12)
            assert not cache.health().l1_trusted
            assert await read("k") == 1
            proxy.heal()
            await until(lambda: cache.health().l1_trusted)
            assert await read("k") == 1
            await cache.aclose()
            await writer.aclose()


def test_threads_have_a_coherent_local_level(redis_url):
    """Plain functions keep values in memory too, and hear of invalidations within the bound."""
    managers = [CacheManager(redis=redis_url) for _ in range(2)]
    value = [0]

    def make(manager):
        @manager.cached("n:{x}")
        def load(x: int) -> int:
            return value[0]

        return load

    one, other = map(make, managers)
    for _ in range(4):
        assert (one(1), other(1)) == (0, 0)
    assert other.stats.l1_hits > 0
    value[0] = 1
    assert one.invalidate(1).delivered
    assert one(1) == 1
    time.sleep(0.12)
    assert other(1) == 1
    with managers[0].sync.writing("n:1") as intent:
        assert intent.delivered
        value[0] = 2
    assert one(1) == 2
    for manager in managers:
        asyncio.run(manager.aclose())


CHILD = textwrap.dedent("""
    import asyncio, os, sys
    from isp_perf.cache import CacheManager, _upkeep

    async def main(url, what):
        cache = CacheManager(redis=url)

        @cache.cached("x:{key}")
        async def read(key: str) -> int:
            print("loading", flush=True)
            await asyncio.sleep(60)
            return 0

        if what == "write":
            async with cache.writing("x:k"):
                print("committed", flush=True)
                await asyncio.sleep(60)
        await read("k")

    asyncio.run(main(*sys.argv[1:]))
""")


def kill_child(url, what):
    """Start another process, wait until it holds the lease or the intent, and kill it."""
    command = [sys.executable, "-c", CHILD, url, what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("what", ["read", "write"])
async def test_a_killed_process_is_replaced_within_two_seconds(managers, redis_url, what):
    """Whoever was killed with a lease, or between commit and invalidation, holds nobody up for longer than 2 s."""
    truth = Truth()
    truth.values["k"] = 1
    read = truth.cached(managers[0])
    await read("warm")
    await asyncio.to_thread(kill_child, redis_url, what)
    killed = time.perf_counter()
    assert await read("k") == 1
    if what == "write":
        await asyncio.sleep(2.1)
        await read("k")
        loads = truth.loads
        await read("k")
        assert truth.loads == loads
    assert time.perf_counter() - killed < 2.3
