"""A cluster that loses a primary: reads go on, no write is doubled, listeners and watchers find a node that lives."""

import asyncio
from contextlib import suppress

import pytest
from redis.exceptions import WatchError

from isp_perf._core.slots import key_slot
from isp_perf.errors import MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis import Gap, Message, RedisPool

KEYS = [f"k{number}" for number in range(30)]


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


async def test_a_dead_primary_is_replaced_under_load(mortal_cluster, patient, until):
    """Reads wait for the promotion without an error, and no write is executed twice."""
    names = ",".join(reversed(mortal_cluster.names.split(",")))
    async with RedisPool(patient(nodes=names)) as pool:
        client, over = pool.client(), asyncio.Event()
        await asyncio.gather(*(client.set(f"still:{key}", 1) for key in KEYS))
        await client.wait(1, 10_000)
        acknowledged, doubtful = dict.fromkeys(KEYS, 0), dict.fromkeys(KEYS, 0)
        writers = [asyncio.create_task(count(client, key, acknowledged, doubtful, until=over)) for key in KEYS]
        readers = [asyncio.create_task(read(client, key, until=over)) for key in KEYS]
        await until(lambda: min(acknowledged.values()) > 1)
        await asyncio.to_thread(mortal_cluster.kill, 0)
        lost = next(key for key in KEYS if key_slot(key.encode()) < 5461)
        assert await client.get(f"still:{lost}") in {b"1", None}
        await client.set(lost + "after", 1)
        over.set()
        assert all(await asyncio.gather(*readers))
        await asyncio.gather(*writers)
        stored = await pool.get_many(KEYS)
    assert all(int(stored.get(key, 0)) <= acknowledged[key] + doubtful[key] for key in KEYS)
    assert all(doubtful[key] <= 1 for key in KEYS)


async def test_calls_to_a_dead_primary_end_within_their_time(mortal_cluster, patient, until, in_time):
    """While nobody serves its slots, reads and writes of them fail as not sent; the others go on."""
    values = dict.fromkeys(KEYS, b"1")
    async with RedisPool(patient(nodes=mortal_cluster.names)) as pool:
        assert (await pool.set_many(values)).errors == {}
    async with RedisPool(patient(nodes=mortal_cluster.names, timeout=0.3)) as pool:
        await until(lambda: pool.get_many(KEYS))
        await asyncio.to_thread(mortal_cluster.kill, 1)  # nobody follows it

        async def as_promised():
            outcomes = await in_time(0.3, *(pool.get(key) for key in KEYS), slack=1.0)
            assert all(outcome == b"1" or isinstance(outcome, RemoteError) for outcome in outcomes)
            of_the_dead = [5461 <= key_slot(key.encode()) < 10923 for key in KEYS]
            return of_the_dead == [isinstance(outcome, NotSentError) for outcome in outcomes]

        await until(as_promised)  # a machine that stalls may cost a round
        errors = (await pool.set_many(values)).errors.values()
        assert errors
        assert all(isinstance(error, RemoteError) for error in errors)


async def until_whole(pool):
    """Write every key, which a replica will be promoted for."""
    outcomes = await asyncio.gather(*(pool.set(key, b"1", idempotent=True) for key in KEYS))
    assert outcomes == [True] * len(KEYS)


async def test_listeners_and_watchers_find_a_living_node(mortal_cluster, patient):
    """A subscription moves from the dead first seed to a living primary and tells the gap; WATCH goes to its key."""
    async with RedisPool(patient(nodes=mortal_cluster.names)) as pool:
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
        message = await asyncio.wait_for(pending, 30) if await published(client, pending) else None
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
    for _ in range(600):
        with suppress(RemoteError):
            await client.publish("news", "x")
        if task.done():
            return
        await asyncio.sleep(0.05)
