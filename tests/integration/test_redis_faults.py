"""What a call means when the network misbehaves: the failure table of the pool, fault by fault."""

import asyncio
from functools import partial

import pytest
import redis.exceptions

from isp_perf.errors import MaybeExecutedError, NotSentError, PoolBusyError, RemoteError
from isp_perf.redis import RedisPool, RetryPolicy
from isp_perf.redis._errors import LostNotSentError

DEADLINE = 0.2


@pytest.fixture
def settings(proxy, patient):
    """Makes settings for a pool behind the proxy."""
    return partial(patient, url=f"redis://127.0.0.1:{proxy.port}")


@pytest.fixture
async def pool(settings):
    """A warm pool behind the proxy."""
    async with RedisPool(settings()) as pool:
        assert await pool.set("a", b"1")
        yield pool


@pytest.fixture
async def hasty(settings, until):
    """The same with a short deadline: where answers are lost, its end is what a test waits for."""
    async with RedisPool(settings(timeout=DEADLINE)) as pool:
        await until(lambda: pool.set("a", b"1"))
        await until(lambda: asyncio.to_thread(pool.blocking.get, "a"))
        yield pool


@pytest.fixture
async def witness(redis_url, patient):
    """A client that reaches the server beside the proxy."""
    async with RedisPool(patient(url=redis_url)) as pool:
        yield pool.client()


async def outcome_of(call):
    """Return how a call ended."""
    (outcome,) = await asyncio.gather(call, return_exceptions=True)
    return outcome


@pytest.mark.parametrize("fault", ["blackhole", "lost answers", "lost requests", "latency"])
async def test_every_call_ends_within_its_deadline(hasty, proxy, in_time, fault):
    """Whatever is swallowed or late, reads, writes, bulk and pipelines end in time, by an error that says why."""
    {
        "blackhole": proxy.blackhole,
        "lost answers": lambda: proxy.blackhole(direction="down"),
        "lost requests": lambda: proxy.blackhole(direction="up"),
        "latency": lambda: proxy.latency(2),
    }[fault]()
    client = hasty.client()
    calls = [hasty.get("a"), client.incr("n"), hasty.get_many(["a", "b"]), client.pipeline().incr("n").execute()]
    for outcome in await in_time(DEADLINE, *calls):
        assert isinstance(outcome, RemoteError)
        assert isinstance(outcome, redis.exceptions.TimeoutError)


async def test_the_blocking_twin_ends_within_its_deadline(hasty, proxy, in_time):
    """A thread waits no longer than a task, but for what it takes to be woken."""
    proxy.blackhole(direction="down")
    (outcome,) = await in_time(DEADLINE, asyncio.to_thread(hasty.blocking.get, "a"), slack=0.5)
    assert isinstance(outcome, MaybeExecutedError)


async def test_a_write_whose_answer_was_lost_runs_once(hasty, proxy, witness, until):
    """It is reported, not repeated."""
    proxy.blackhole(direction="down")
    assert isinstance(await outcome_of(hasty.client().incr("n")), MaybeExecutedError)
    proxy.heal()
    await until(lambda: hasty.client().ping())
    assert await witness.get("n") == b"1"


@pytest.mark.parametrize("cut", ["drop", "reset", "half_close"])
async def test_reads_survive_a_cut_connection(pool, proxy, until, cut):
    """A cut while reads are on their way is invisible: they are repeated on the next link."""
    assert (await pool.set_many({f"k{i}": b"%d" % i for i in range(50)})).errors == {}
    proxy.blackhole()
    reads = [asyncio.create_task(pool.get(f"k{i}")) for i in range(50)]
    await until(lambda: pool.stats().in_flight == 50)
    proxy.heal()
    getattr(proxy, cut)()
    assert await asyncio.gather(*reads) == [b"%d" % i for i in range(50)]
    assert pool.stats().lanes["fast"].lost_links == 1


@pytest.mark.parametrize("cut", ["drop", "reset"])
async def test_writes_are_never_executed_twice(pool, proxy, witness, until, cut):
    """Under cut connections the counter lies between what was acknowledged and that plus what was reported as open."""
    client = pool.client()
    acknowledged = unsure = 0

    async def worker():
        nonlocal acknowledged, unsure
        for _ in range(30):
            outcome = await outcome_of(client.incr("n"))
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
    await until(client.ping)
    counted = int(await witness.get("n"))
    assert acknowledged > 0
    assert acknowledged <= counted <= acknowledged + unsure


async def test_no_value_reaches_the_wrong_caller(settings, proxy):
    """Sliced answers, cancelled callers, cut connections: every value carries its key."""
    async with RedisPool(settings(retry=RetryPolicy(attempts=10))) as pool:
        assert (await pool.set_many({f"k{i}": b"v%d" % i for i in range(64)})).errors == {}
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


async def test_garbage_ends_the_link_and_never_becomes_a_value(pool, proxy, until):
    """A corrupted answer is an error, and the next call has a new link."""
    proxy.corrupt(1)
    assert isinstance(await outcome_of(pool.client().incr("n")), MaybeExecutedError)
    proxy.heal()
    assert await until(lambda: pool.get("a")) == b"1"


async def test_waiting_callers_make_one_connection_attempt_at_a_time(settings, proxy, until):
    """A thousand callers during an outage cost a handful of attempts, and all fail fast."""
    async with RedisPool(settings()) as pool:
        pool.client()
        proxy.drop(refuse=True)
        outcomes = await asyncio.gather(*[outcome_of(pool.get("a")) for _ in range(1_000)])
        assert {type(outcome) for outcome in outcomes} == {LostNotSentError}
        assert proxy.accepted < 20
        proxy.heal()
        await until(lambda: pool.stats().lanes["fast"].connects)
        assert await pool.set("a", b"1")


async def test_in_flight_is_bounded(settings, proxy):
    """Above the limit callers wait in order and are all served, or with overflow="error" are refused at once."""
    proxy.latency(0.005)
    async with RedisPool(settings(in_flight=10)) as pool:
        await pool.client().ping()
        assert len(await asyncio.gather(*[pool.client().incr("n") for _ in range(100)])) == 100
    async with RedisPool(settings(in_flight=10, overflow="error")) as pool:
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


async def test_health_tells_a_dead_server_in_time(settings, proxy, until, in_time):
    """A monitoring endpoint neither raises nor waits longer than connecting may take."""
    async with RedisPool(settings(timeout=DEADLINE, connect_timeout=DEADLINE)) as pool:
        await until(lambda: pool.set("a", b"1"))
        await pool.health()
        proxy.blackhole()
        await outcome_of(pool.get("a"))
        (health,) = await in_time(DEADLINE, pool.health())
        assert health.status == "unhealthy"
        assert health.ping_time_ms is None
        assert health.reason
