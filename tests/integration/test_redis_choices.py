"""What a caller may choose: a guard, text instead of bytes, calls that may run twice; and what the pool learns."""

import asyncio
from functools import partial

import pytest

from isp_perf.breaker import CircuitConfig, CircuitRegistry
from isp_perf.errors import CircuitOpenError, ConfigurationError, MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis import RedisPool

LARGE = 300_000


@pytest.fixture
async def pool(redis_url, patient):
    """A pool on the clean server."""
    async with RedisPool(patient(url=redis_url)) as pool:
        yield pool


@pytest.fixture
def at_proxy(proxy, patient):
    """Makes settings for a pool behind the proxy."""
    return partial(patient, url=f"redis://127.0.0.1:{proxy.port}")


# -- a guard


async def test_an_open_breaker_rejects_before_anything_is_sent(at_proxy):
    """Every kind of call says that nothing was sent, by the breaker's word; closed again, all of them work."""
    breaker = CircuitRegistry().define("redis", CircuitConfig(failure_threshold=3, break_duration=30))
    async with RedisPool(at_proxy(), guard=breaker) as pool:
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


async def test_answers_are_successes_for_the_breaker(at_proxy):
    """Whatever they say."""
    breaker = CircuitRegistry().define("redis", CircuitConfig(failure_threshold=1, break_duration=300))
    async with RedisPool(at_proxy(), guard=breaker) as pool:
        await pool.set("a", b"1")
        await asyncio.gather(pool.client().incr("a"), pool.client().lpush("a", "x"), return_exceptions=True)
        assert await asyncio.to_thread(pool.blocking.get, "a") == b"2"
    assert breaker.counts.failures == 0
    assert breaker.counts.successes >= 3


@pytest.fixture
async def hasty(at_proxy, until):
    """A pool with a short deadline whose connections are up, and its breaker, which has seen nothing yet."""
    breaker = CircuitRegistry().define("redis", CircuitConfig(failure_threshold=2, break_duration=300))
    async with RedisPool(at_proxy(timeout=0.2, connect_timeout=0.2), guard=breaker) as pool:
        breaker.reset()
        await until(lambda: pool.set("a", b"1"))
        await until(lambda: asyncio.to_thread(pool.blocking.get, "a"))
        breaker.reset()
        yield pool, breaker


async def test_a_server_that_is_gone_opens_the_breaker(hasty, proxy):
    """Lost answers and failed attempts to connect are failures, and then nothing more is sent."""
    pool, breaker = hasty
    proxy.blackhole()
    for _ in range(20):
        await asyncio.gather(pool.get("a"), return_exceptions=True)
        if breaker.state == "open":
            break
    assert breaker.state == "open"
    with pytest.raises(NotSentError):
        await pool.get("a")


async def test_the_blocking_client_tells_its_guard(hasty, proxy):
    """Threads' rounds count, too: lost answers open the breaker."""
    pool, breaker = hasty
    proxy.blackhole()
    for _ in range(20):
        (outcome,) = await asyncio.gather(asyncio.to_thread(pool.sync().incr, "n"), return_exceptions=True)
        assert isinstance(outcome, RemoteError)
        if breaker.state == "open":
            break
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
        assert (await channel.get_message(timeout=30))["channel"] == "news"
    await text.rpush("l", "x")
    assert list(await text.blpop(["l"], timeout=1)) == ["l", "x"]
    assert await raw.get("a") == "é".encode()


def test_a_decoding_blocking_client_hands_out_text(redis_url, patient):
    """The twin for threads does the same, on the shared connection and on its own."""
    pool = RedisPool(patient(url=redis_url))
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


async def test_an_idempotent_write_is_repeated_when_its_answer_is_lost(at_proxy, proxy, until):
    """Declared so by the caller, a write is treated like a read; otherwise it is reported and runs once."""
    async with RedisPool(at_proxy()) as pool:

        async def cut_off(call):
            """Lose the answers to a call, and let its repetition through."""
            assert await pool.set("a", b"0")
            proxy.blackhole(direction="down")
            task = asyncio.ensure_future(call)
            await until(lambda: pool.stats().in_flight)
            proxy.reset(refuse=True)
            proxy.heal()
            return await task

        assert await cut_off(pool.set("a", b"1", idempotent=True))
        assert pool.stats().lanes["fast"].retries_read == 1
        assert (await cut_off(pool.set_many({"b": b"1", "c": b"2"}, idempotent=True))).errors == {}
        assert await cut_off(pool.client().execute_command("INCRBY", "n", 0, idempotent=True)) == 0
        with pytest.raises(MaybeExecutedError):
            await cut_off(pool.set("a", b"2"))


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
    assert (await pool.set_many({f"page:{i}": b"x" * 50_000 for i in range(20)})).errors == {}
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


async def test_a_joined_read_of_a_large_value_is_learnt(redis_url, patient):
    """With coalesce, a kind of key that was large is asked alone, over the bulk lane."""
    async with RedisPool(patient(url=redis_url, coalesce=True)) as pool:
        assert (await pool.set_many({"big:1": b"x" * LARGE, "big:2": b"y" * LARGE, "a": b"1"})).errors == {}
        keys = ["big:1", "a", "big:2"]
        for _ in range(2):
            values = await asyncio.gather(*[pool.get(key) for key in keys])
            assert list(map(len, values)) == [LARGE, 1, LARGE]
        assert pool.stats().lanes["bulk"].commands == 2


async def test_a_large_reply_delays_no_small_one(at_proxy, proxy):
    """While a value of 20 MB creeps through a slow connection, small reads on the fast lane are answered in between."""
    async with RedisPool(at_proxy()) as pool:
        await pool.set("small:1", b"1")
        await pool.set("big:1", b"x" * 20_000_000)
        await pool.get("big:1")  # learnt
        proxy.latency(0.002)  # for each of some 300 pieces of the one, and for both pieces of each of the others
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
        assert answered > 20
