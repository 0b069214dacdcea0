"""A cluster that loses a primary: reads go on, no write is doubled, listeners and watchers find a node that lives."""

import asyncio
import time
from contextlib import suppress

import pytest
from redis.exceptions import WatchError

from isp_perf._core.slots import key_slot
from isp_perf.errors import MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis import Gap, Message, RedisPool, RedisSettings

KEYS = [f"k{number}" for number in range(30)]
PATIENT = 15.0  # seconds: far more than an election takes on a busy machine


async def count(client, key, acknowledged, doubtful, *, until):
    """Increment a key until told to end; note what was acknowledged and what may have been executed."""
    while not until.is_set():
        try:
            await client.incr(key)
            acknowledged[key] += 1
        except MaybeExecutedError:
            doubtful[key] += 1


async def read(client, key, *, until):
    """Read a key until told to end; return how often."""
    reads = 0
    while not until.is_set():
        assert int(await client.get(f"still:{key}")) == 1
        reads += 1
        await asyncio.sleep(0.001)
    return reads


async def test_a_dead_primary_is_replaced_under_load(mortal_cluster):
    """Reads wait for the promotion without an error, and no write is executed twice."""
    names = ",".join(reversed(mortal_cluster.names.split(",")))
    async with RedisPool(RedisSettings(nodes=names, timeout=PATIENT)) as pool:
        client, over = pool.client(), asyncio.Event()
        await asyncio.gather(*(client.set(f"still:{key}", 1) for key in KEYS))
        await client.wait(1, 1000)
        acknowledged, doubtful = dict.fromkeys(KEYS, 0), dict.fromkeys(KEYS, 0)
        writers = [asyncio.create_task(count(client, key, acknowledged, doubtful, until=over)) for key in KEYS]
        readers = [asyncio.create_task(read(client, key, until=over)) for key in KEYS]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(mortal_cluster.kill, 0)
        lost = next(key for key in KEYS if key_slot(key.encode()) < 5461)
        started = time.monotonic()
        assert await client.get(f"still:{lost}") in {b"1", None}
        await client.set(lost + "after", 1)
        assert time.monotonic() - started < PATIENT
        over.set()
        assert all(await asyncio.gather(*readers))
        await asyncio.gather(*writers)
        stored = await pool.get_many(KEYS)
    assert all(int(stored.get(key, 0)) <= acknowledged[key] + doubtful[key] for key in KEYS)
    assert all(doubtful[key] <= 1 for key in KEYS)


async def test_calls_to_a_dead_primary_end_within_their_time(mortal_cluster):
    """Until the replica is promoted, reads and writes of the lost slots fail as not sent; the others go on."""
    mortal_cluster.empty()
    async with RedisPool(RedisSettings(nodes=mortal_cluster.names, timeout=0.3)) as pool:
        values = dict.fromkeys(KEYS, b"1")
        assert (await pool.set_many(values)).errors == {}
        await asyncio.to_thread(mortal_cluster.kill, 0)
        started = time.monotonic()
        outcomes = await asyncio.gather(*(pool.get(key) for key in KEYS), return_exceptions=True)
        assert time.monotonic() - started < 0.3 + 0.3
        assert {type(outcome) is bytes or isinstance(outcome, NotSentError) for outcome in outcomes} == {True}
        assert sum(outcome == b"1" for outcome in outcomes) >= len(KEYS) // 3
        result = await pool.set_many(values)
        assert all(isinstance(error, RemoteError) for error in result.errors.values())
        await until_whole(pool)
        assert (await pool.set_many(values)).errors == {}


async def until_whole(pool):
    """Wait until every key can be written again."""
    for _ in range(100):
        with suppress(RemoteError):
            await asyncio.gather(*(pool.set(key, b"1") for key in KEYS))
            return
        await asyncio.sleep(0.1)
    raise AssertionError("no replica was promoted within its time")


async def test_listeners_and_watchers_find_a_living_node(mortal_cluster):
    """A subscription moves from the dead first seed to a living primary and tells the gap; WATCH goes to its key."""
    async with RedisPool(RedisSettings(nodes=mortal_cluster.names, timeout=1.0)) as pool:
        client = pool.client()
        await client.set("k", 1)
        heard = pool.subscribe("news")
        first = asyncio.create_task(anext(heard))
        await publish_until(client, first)
        assert await first == Message(b"news", b"x")
        for _ in range(100):  # what was published meanwhile
            pending = asyncio.create_task(anext(heard))
            done, _ = await asyncio.wait([pending], timeout=0.1)
            if not done:
                break
        await asyncio.to_thread(mortal_cluster.kill, 0)
        message = await asyncio.wait_for(pending, 10) if await published(client, pending) else None
        assert isinstance(message, Gap | Message)
        await heard.aclose()
        await until_whole(pool)
        async with client.pipeline() as pipe:
            for number in range(9):
                key = f"watched{number}"
                await pipe.watch(key)
                assert await pipe.get(key) is None
                pipe.multi()
                pipe.set(key, number)
                assert await pipe.execute() == [True]
            await pipe.watch("watched1")
            await client.set("watched1", "changed")
            pipe.multi()
            pipe.set("watched1", "mine")
            with pytest.raises(WatchError):
                await pipe.execute()


async def published(client, task):
    """Publish until a listener hears."""
    await publish_until(client, task)
    return task.done()


async def publish_until(client, task):
    """Publish again and again until a task is done."""
    for _ in range(200):
        with suppress(RemoteError):
            await client.publish("news", "x")
        if task.done():
            return
        await asyncio.sleep(0.05)
