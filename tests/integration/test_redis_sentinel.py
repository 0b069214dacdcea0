"""A primary that a real sentinel watches is replaced, by order or killed under load: its successor is found."""

import asyncio
import threading
import time
from contextlib import suppress

import pytest
from redis.exceptions import ReadOnlyError, ResponseError

from isp_perf.errors import MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis import RedisPool, RetryPolicy

KEYS = [f"k{number}" for number in range(20)]


@pytest.fixture
def settings(sentinel, patient):
    """Settings that name the sentinel."""
    (*_, port), _ = sentinel
    return patient(sentinel=f"127.0.0.1:{port}/main", retry=RetryPolicy(attempts=100, maximum=0.1))


async def test_an_ordered_failover_is_followed(sentinel, settings, patient, until):
    """The pool reads and writes at the primary's successor, over every lane."""
    first, successor, watch = (RedisPool(patient(url=f"redis://127.0.0.1:{port}")) for port in sentinel[0])
    async with RedisPool(settings) as pool, first, successor, watch:
        assert await pool.set("a", b"1")
        assert await asyncio.to_thread(pool.blocking.get, "a") == b"1"
        assert (await pool.health()).status == "healthy"

        async def ordered():
            with suppress(ResponseError):  # the sentinel does not know the replica well enough yet
                return await watch.client().execute_command("SENTINEL FAILOVER", "main")

        async def leads():
            return (await successor.client().info("replication"))["role"] == "master"

        await until(ordered)
        await until(leads)
        await first.client().replicaof("127.0.0.1", sentinel[0][1])  # the sentinel orders it as well, seconds later
        await until_written(pool, successor)
        assert await pool.get("after") == await asyncio.to_thread(pool.blocking.get, "after")
        assert await pool.client().blpop(["nothing"], timeout=0.01) is None


async def test_a_killed_primary_is_replaced_and_no_write_is_doubled(sentinel, settings, patient, until):
    """Writes are refused as not sent or doubtful while nobody serves; nothing is counted twice, and all goes on."""
    (_, second, _), processes = sentinel
    acknowledged, doubtful, unsent = dict.fromkeys(KEYS, 0), dict.fromkeys(KEYS, 0), 0
    over = asyncio.Event()

    async def count(client, key):
        nonlocal unsent
        while not over.is_set():
            try:
                await client.incr(key)
                acknowledged[key] += 1
            except MaybeExecutedError:
                doubtful[key] += 1
            except NotSentError:
                unsent += 1
                await asyncio.sleep(0.01)

    async with RedisPool(settings) as pool, RedisPool(patient(url=f"redis://127.0.0.1:{second}")) as successor:
        tasks = [asyncio.create_task(count(pool.client(), key)) for key in KEYS]
        await until(lambda: sum(acknowledged.values()) > 100)
        processes[0].kill()
        await until_written(pool, successor)
        resumed = sum(acknowledged.values())
        await until(lambda: sum(acknowledged.values()) > resumed)
        over.set()
        await asyncio.gather(*tasks)
        stored = await successor.get_many(KEYS)
        assert pool.stats().lanes["fast"].connects >= 2
    assert all(int(stored[key]) <= acknowledged[key] + doubtful[key] for key in KEYS)
    assert sum(doubtful.values()) <= len(KEYS)


async def until_written(pool, successor):
    """Wait until a write through the sentinel is at the successor."""
    for number in range(600):
        with suppress(RemoteError, ReadOnlyError):
            await pool.set("after", str(number))
            if await successor.get("after") == str(number).encode():
                return
        await asyncio.sleep(0.05)
    raise AssertionError("no successor within 30 s")


def test_threads_find_the_successor_too(sentinel, settings):
    """The client for threads goes on at the successor, and counts nothing twice."""
    processes = sentinel[1]
    client, tried, counted = RedisPool(settings).sync(), 0, 0
    assert client.incr("count") == 1
    killer = threading.Timer(0.05, processes[0].kill)
    killer.start()
    deadline = time.monotonic() + 40
    after = 0
    while after < 20 and time.monotonic() < deadline:
        try:
            client.incr("count")
        except NotSentError:
            time.sleep(0.02)
        except MaybeExecutedError:
            tried += 1
        else:
            counted += 1
            after += processes[0].poll() is not None
    assert after == 20
    assert int(client.get("count")) <= 1 + counted + tried
    client.disconnect()
