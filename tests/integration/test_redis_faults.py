"""What a call means when the network misbehaves: the failure table of the pool, fault by fault."""

import asyncio
import time
from urllib.parse import urlsplit

import pytest
import redis.exceptions

from isp_perf.errors import MaybeExecutedError, NotSentError, PoolBusyError, RemoteError
from isp_perf.redis import RedisPool, RedisSettings, RetryPolicy
from isp_perf.testing import FaultProxy

DEADLINE = 0.2
NOISE = 0.3  # what a busy machine may add to a deadline


@pytest.fixture
def proxy(redis_url):
    """A proxy in front of the clean server."""
    where = urlsplit(redis_url)
    with FaultProxy(where.hostname, where.port) as proxy:
        yield proxy


def settings(proxy, **changes):
    """Settings for a pool behind the proxy."""
    options = {"timeout": DEADLINE, "connect_timeout": 0.1} | changes
    return RedisSettings(url=f"redis://127.0.0.1:{proxy.port}", **options)


@pytest.fixture
async def pool(proxy):
    """A warm pool behind the proxy."""
    async with RedisPool(settings(proxy)) as pool:
        await pool.set("a", b"1")
        await asyncio.to_thread(pool.blocking.get, "a")
        yield pool


async def ended(call):
    """Return how a call ended and how long it took."""
    started = time.perf_counter()
    try:
        outcome = await call
    except Exception as error:
        outcome = error
    return outcome, time.perf_counter() - started


@pytest.mark.parametrize("fault", ["blackhole", "lost answers", "lost requests", "latency"])
async def test_every_call_ends_within_its_deadline(pool, proxy, fault):
    """Whatever is swallowed or late, reads, writes, bulk and pipelines end in time, by an error that says why."""
    {
        "blackhole": proxy.blackhole,
        "lost answers": lambda: proxy.blackhole(direction="down"),
        "lost requests": lambda: proxy.blackhole(direction="up"),
        "latency": lambda: proxy.latency(2),
    }[fault]()
    client = pool.client()
    calls = [pool.get("a"), client.incr("n"), pool.get_many(["a", "b"]), client.pipeline().incr("n").execute()]
    for outcome, seconds in await asyncio.gather(*[ended(call) for call in calls]):
        assert isinstance(outcome, RemoteError)
        assert isinstance(outcome, redis.exceptions.TimeoutError)
        assert seconds < DEADLINE + NOISE


async def test_the_blocking_twin_ends_within_its_deadline(pool, proxy):
    """A thread waits no longer than a task."""
    proxy.blackhole(direction="down")
    outcome, seconds = await ended(asyncio.to_thread(pool.blocking.get, "a"))
    assert isinstance(outcome, MaybeExecutedError)
    assert seconds < DEADLINE + NOISE


async def test_a_write_whose_answer_was_lost_runs_once(pool, proxy):
    """It is reported, not repeated."""
    proxy.blackhole(direction="down")
    outcome, _ = await ended(pool.client().incr("n"))
    assert isinstance(outcome, MaybeExecutedError)
    proxy.heal()
    await asyncio.sleep(0.05)
    assert await pool.client().get("n") == b"1"


@pytest.mark.parametrize("cut", ["drop", "reset", "half_close"])
async def test_reads_survive_a_cut_connection(pool, proxy, cut):
    """A cut while reads are on their way is invisible: they are repeated on the next link."""
    await pool.set_many({f"k{i}": b"%d" % i for i in range(50)})
    proxy.latency(0.01)
    reads = [asyncio.create_task(pool.get(f"k{i}")) for i in range(50)]
    await asyncio.sleep(0.005)
    proxy.heal()
    getattr(proxy, cut)()
    assert await asyncio.gather(*reads) == [b"%d" % i for i in range(50)]
    assert pool.stats().lanes["fast"].lost_links == 1


@pytest.mark.parametrize("cut", ["drop", "reset"])
async def test_writes_are_never_executed_twice(pool, proxy, cut):
    """Under cut connections the counter lies between what was acknowledged and that plus what was reported as open."""
    client = pool.client()
    acknowledged = unsure = 0

    async def worker():
        nonlocal acknowledged, unsure
        for _ in range(30):
            outcome, _ = await ended(client.incr("n"))
            if isinstance(outcome, int):
                acknowledged += 1
            elif isinstance(outcome, MaybeExecutedError):
                unsure += 1
            else:
                assert isinstance(outcome, NotSentError)
                await asyncio.sleep(0.005)

    async def cutter():
        for _ in range(15):
            await asyncio.sleep(0.004)
            getattr(proxy, cut)()

    await asyncio.gather(cutter(), *[worker() for _ in range(10)])
    await asyncio.sleep(0.05)
    counted = int(await client.get("n"))
    assert acknowledged > 0
    assert acknowledged <= counted <= acknowledged + unsure


async def test_no_value_reaches_the_wrong_caller(proxy):
    """Sliced answers, cancelled and timed-out callers, cut connections: every value carries its key."""
    async with RedisPool(settings(proxy, timeout=2.0, connect_timeout=1.0, retry=RetryPolicy(attempts=10))) as pool:
        await pool.set_many({f"k{i}": b"v%d" % i for i in range(64)})
        proxy.slice(7)
        wrong = answered = 0

        async def read(i):
            nonlocal wrong, answered
            value = await pool.client().get(f"k{i % 64}")
            answered += 1
            wrong += value != b"v%d" % (i % 64)

        for turn in range(10):
            tasks = [asyncio.create_task(read(i)) for i in range(200)]
            await asyncio.sleep(0)
            for task in tasks[turn % 3 :: 3]:
                task.cancel()
            if turn == 5:
                proxy.reset()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert answered > 500
        assert wrong == 0


async def test_garbage_ends_the_link_and_never_becomes_a_value(pool, proxy):
    """A corrupted answer is an error, and the next call has a new link."""
    proxy.corrupt(1)
    outcome, _ = await ended(pool.client().incr("n"))
    assert isinstance(outcome, MaybeExecutedError)
    proxy.heal()
    await asyncio.sleep(0.05)
    assert await pool.get("a") == b"1"


async def test_waiting_callers_make_one_connection_attempt_at_a_time(proxy):
    """A thousand callers during an outage cost a handful of attempts, and all fail fast."""
    async with RedisPool(settings(proxy)) as pool:
        pool.client()
        proxy.drop(refuse=True)
        outcomes = await asyncio.gather(*[ended(pool.get("a")) for _ in range(1_000)])
        assert all(isinstance(outcome, NotSentError) for outcome, _ in outcomes)
        assert proxy.accepted <= 3
        proxy.heal()
        for _ in range(200):
            if pool.stats().lanes["fast"].connects:
                break
            await asyncio.sleep(0.01)
        assert await pool.set("a", b"1")


async def test_in_flight_is_bounded(proxy):
    """Above the limit callers wait in order and are all served, or with overflow="error" are refused at once."""
    proxy.latency(0.005)
    async with RedisPool(settings(proxy, in_flight=10, timeout=5.0, connect_timeout=5.0)) as pool:
        await pool.client().ping()
        assert len(await asyncio.gather(*[pool.client().incr("n") for _ in range(100)])) == 100
    async with RedisPool(settings(proxy, in_flight=10, overflow="error", timeout=5.0, connect_timeout=5.0)) as pool:
        await pool.client().ping()
        outcomes = await asyncio.gather(*[pool.client().incr("n") for _ in range(100)], return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, PoolBusyError)]
        assert len(refused) == 90


async def test_cancelled_calls_reconnect_nothing(pool, proxy):
    """Hundreds of cancelled calls leave the connection as it is."""
    before = proxy.accepted
    for _ in range(20):
        tasks = [asyncio.create_task(pool.get("a")) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert await pool.get("a") == b"1"
    assert proxy.accepted == before


async def test_health_tells_a_dead_server_in_time(pool, proxy):
    """A monitoring endpoint neither raises nor waits longer than connecting may take."""
    await pool.health()
    proxy.blackhole()
    await ended(pool.get("a"))
    health, seconds = await ended(pool.health())
    assert health.status == "unhealthy"
    assert health.ping_time_ms is None
    assert health.reason
    assert seconds < DEADLINE + NOISE
