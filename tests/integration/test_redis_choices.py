"""What a caller may choose: a guard, text instead of bytes, calls that may run twice; and what the pool learns."""

import asyncio
import time
from urllib.parse import urlsplit

import pytest

from isp_perf.breaker import CircuitConfig, CircuitRegistry
from isp_perf.errors import CircuitOpenError, ConfigurationError, MaybeExecutedError, NotSentError
from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.testing import FaultProxy

LARGE = 300_000


@pytest.fixture
async def pool(redis_url):
    """A pool on the clean server, patient with a busy machine."""
    async with RedisPool(RedisSettings(url=redis_url, timeout=10.0, connect_timeout=5.0)) as pool:
        yield pool


@pytest.fixture
def proxy(redis_url):
    """A proxy in front of the clean server."""
    where = urlsplit(redis_url)
    with FaultProxy(where.hostname, where.port) as proxy:
        yield proxy


def at(proxy, **options):
    """Settings for a pool behind the proxy."""
    return RedisSettings(url=f"redis://127.0.0.1:{proxy.port}", **({"timeout": 0.2, "connect_timeout": 0.2} | options))


# -- a guard


async def test_an_open_breaker_rejects_before_anything_is_sent(proxy):
    """Every kind of call says that nothing was sent, by the breaker's word; closed again, all of them work."""
    breaker = CircuitRegistry().define("redis", CircuitConfig(failure_threshold=3, break_duration=30))
    async with RedisPool(at(proxy, timeout=5.0), guard=breaker) as pool:
        await pool.set("a", b"1")
        await pool.delete_pattern("none*")
        assert await asyncio.to_thread(pool.blocking.get, "a") == b"1"
        sent = pool.stats().commands
        breaker.isolate("test")
        calls = [
            pool.get("a"),
            pool.get_many(["a"]),
            pool.client().incr("n"),
            pool.client().pipeline().incr("n").execute(),
            pool.client().blpop(["l"], timeout=0.01),
            pool.delete_pattern("none*"),
            asyncio.to_thread(pool.blocking.get, "a"),
        ]
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, NotSentError)
            assert isinstance(outcome.__cause__, CircuitOpenError)
        assert pool.stats().commands == sent
        breaker.reset()
        assert await pool.get("a") == b"1"
        assert await asyncio.to_thread(pool.blocking.get, "a") == b"1"


async def test_a_server_that_is_gone_opens_the_breaker(proxy):
    """Lost answers and failed attempts to connect are failures; answers, whatever they say, are successes."""
    breaker = CircuitRegistry().define("redis", CircuitConfig(failure_threshold=2, break_duration=30))
    async with RedisPool(at(proxy), guard=breaker) as pool:
        await pool.set("a", b"1")
        await asyncio.gather(pool.client().incr("a"), pool.client().lpush("a", "x"), return_exceptions=True)
        assert breaker.counts.failures == 0
        assert breaker.counts.successes > 0
        proxy.blackhole()
        for _ in range(20):
            await asyncio.gather(pool.get("a"), return_exceptions=True)
            if breaker.state == "open":
                break
        assert breaker.state == "open"
        started = time.perf_counter()
        with pytest.raises(NotSentError):
            await pool.get("a")
        assert time.perf_counter() - started < 0.1


async def test_the_blocking_client_tells_its_guard(proxy):
    """Threads' rounds count, too: lost answers open the breaker."""
    breaker = CircuitRegistry().define("redis", CircuitConfig(failure_threshold=1, break_duration=30))
    async with RedisPool(at(proxy), guard=breaker) as pool:
        assert await asyncio.to_thread(pool.blocking.get, "a") is None
        assert breaker.counts.successes == 1
        proxy.blackhole()
        with pytest.raises(MaybeExecutedError):
            await asyncio.to_thread(pool.sync().incr, "n")
        assert breaker.state == "open"


# -- text instead of bytes


async def test_a_decoding_client_hands_out_text_as_redis_py_does(pool):
    """Single replies, nested ones, pipelines, transactions, WATCH and pub/sub; DUMP stays bytes; others keep bytes."""
    text, raw = pool.client(decode_responses=True), pool.client()
    assert pool.client(decode_responses=True) is text
    await text.set("a", "é")
    await text.hset("h", mapping={"f": "1"})
    await text.sadd("s", "m")
    assert await text.get("a") == "é"
    assert await text.hgetall("h") == {"f": "1"}
    assert await text.smembers("s") == {"m"}
    assert await text.mget(["a", "none"]) == ["é", None]
    assert isinstance(await text.dump("a"), bytes)
    assert await text.pipeline(transaction=False).get("a").hgetall("h").execute() == ["é", {"f": "1"}]
    assert await text.pipeline().get("a").execute() == ["é"]
    async with text.pipeline() as watched:
        await watched.watch("a")
        assert await watched.get("a") == "é"
        watched.multi()
        watched.get("a")
        assert await watched.execute() == ["é"]
    async with text.pubsub() as channel:
        await channel.subscribe("news")
        assert (await channel.get_message(timeout=5))["channel"] == "news"
    await text.rpush("l", "x")
    assert list(await text.blpop(["l"], timeout=1)) == ["l", "x"]
    assert await raw.get("a") == "é".encode()


def test_a_decoding_blocking_client_hands_out_text(redis_url):
    """The twin for threads does the same, on the shared connection and on its own."""
    pool = RedisPool(RedisSettings(url=redis_url, timeout=10.0, connect_timeout=5.0))
    text = pool.sync(decode_responses=True)
    text.set("a", "é")
    assert text.get("a") == "é"
    text.rpush("l", "x", "y")
    assert text.lrange("l", 0, -1) == ["x", "y"]
    assert list(text.blpop(["l"], timeout=1)) == ["l", "x"]
    assert text.pipeline().get("a").execute() == ["é"]
    assert isinstance(text.dump("a"), bytes)
    assert pool.sync().get("a") == "é".encode()
    text.disconnect()
    pool.sync().disconnect()


# -- calls that may run twice


async def test_an_idempotent_write_is_repeated_when_its_answer_is_lost(proxy):
    """Declared so by the caller, a write is treated like a read; otherwise it is reported and runs once."""
    async with RedisPool(at(proxy, timeout=2.0, connect_timeout=1.0)) as pool:
        await pool.set("a", b"0")
        proxy.latency(0.05)

        async def cut():
            await asyncio.sleep(0.02)
            proxy.heal()
            proxy.reset()

        _, stored = await asyncio.gather(cut(), pool.set("a", b"1", idempotent=True))
        assert stored
        assert pool.stats().lanes["fast"].retries_read == 1
        proxy.latency(0.05)
        _, result = await asyncio.gather(cut(), pool.set_many({"b": b"1", "c": b"2"}, idempotent=True))
        assert result.ok
        proxy.latency(0.05)
        _, answer = await asyncio.gather(cut(), pool.client().execute_command("INCRBY", "n", 0, idempotent=True))
        assert answer == 0
        proxy.latency(0.05)
        _, outcome = await asyncio.gather(cut(), pool.set("a", b"2"), return_exceptions=True)
        assert isinstance(outcome, MaybeExecutedError)


async def test_nx_cannot_be_idempotent(pool):
    """A repeated SET NX would find its own first value."""
    with pytest.raises(ConfigurationError):
        await pool.set("a", b"1", nx=True, idempotent=True)


# -- what is learnt


async def test_large_replies_are_learnt_and_take_the_bulk_lane(pool):
    """After one large value, keys of its kind are read over the bulk lane, by whatever call, and others are not."""
    await pool.set("big:1", b"x" * LARGE)
    await pool.set("big:2", b"y" * LARGE)
    await pool.set("small:1", b"z")
    client = pool.client()
    assert await client.get("big:1") == b"x" * LARGE
    assert pool.stats().lanes["fast"].large_replies == 1
    assert await client.get("big:2") == b"y" * LARGE
    assert await pool.get("big:1") == b"x" * LARGE
    assert await client.get(b"big:1") == b"x" * LARGE
    assert await client.get("small:1") == b"z"
    assert pool.stats().lanes["bulk"].commands == 3
    assert pool.stats().lanes["fast"].large_replies == 1


async def test_large_batches_are_learnt(pool):
    """A bulk read with large answers, and a pipeline with one, move to the bulk lane as well."""
    await pool.set_many({f"page:{i}": b"x" * 50_000 for i in range(20)})
    for _ in range(2):
        assert len(await pool.get_many([f"page:{i}" for i in range(20)])) == 20
    assert pool.stats().lanes["fast"].large_replies == 1
    assert pool.stats().lanes["bulk"].commands == 1
    await pool.set("big:1", b"x" * LARGE)
    for _ in range(2):
        assert (await pool.client().pipeline(transaction=False).get("big:1").execute())[0] == b"x" * LARGE
    assert pool.stats().lanes["bulk"].commands == 2


async def test_what_was_learnt_is_forgotten(pool):
    """When values have become small, a row of small answers brings them back to the fast lane."""
    await pool.set("big:1", b"x" * LARGE)
    await pool.get("big:1")
    await pool.set("big:1", b"x")
    for _ in range(70):
        await pool.get("big:1")
    bulk = pool.stats().lanes["bulk"].commands
    assert bulk == 64
    assert await pool.get("big:1") == b"x"
    assert pool.stats().lanes["bulk"].commands == bulk


async def test_a_joined_read_of_a_large_value_is_learnt(redis_url):
    """With coalesce, a kind of key that was large is asked alone, over the bulk lane."""
    settings = RedisSettings(url=redis_url, timeout=10.0, connect_timeout=5.0, coalesce=True)
    async with RedisPool(settings) as pool:
        await pool.set_many({"big:1": b"x" * LARGE, "big:2": b"y" * LARGE, "a": b"1"})
        keys = ["big:1", "a", "big:2"]
        for _ in range(2):
            values = await asyncio.gather(*[pool.get(key) for key in keys])
            assert list(map(len, values)) == [LARGE, 1, LARGE]
        assert pool.stats().lanes["bulk"].commands == 2


async def test_a_large_reply_delays_no_small_one(proxy):
    """While a value of 20 MB creeps through a slow connection, small reads on the fast lane are answered in between."""
    async with RedisPool(at(proxy, timeout=20.0, connect_timeout=5.0)) as pool:
        await pool.set("small:1", b"1")
        await pool.set("big:1", b"x" * 20_000_000)
        await pool.get("big:1")  # learnt
        done = asyncio.Event()

        async def large():
            value = await pool.get("big:1")
            done.set()
            return len(value)

        reading = asyncio.create_task(large())
        await asyncio.sleep(0)
        answered = 0
        while not done.is_set():
            assert await pool.get("small:1") == b"1"
            answered += 1
        assert await reading == 20_000_000
        assert answered > 1  # some twenty on an idle machine
