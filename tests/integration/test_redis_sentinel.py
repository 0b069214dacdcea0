"""A primary that a real sentinel watches is killed under load: its successor is found, and no write is doubled."""

import asyncio
import threading
import time
from contextlib import suppress

import pytest

from isp_perf.errors import MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis import RedisPool, RedisSettings, RetryPolicy

KEYS = [f"k{number}" for number in range(20)]


@pytest.fixture
def settings(sentinel):
    """Settings that name the sentinel."""
    (*_, port), _ = sentinel
    return RedisSettings(sentinel=f"127.0.0.1:{port}/main", timeout=1.0, retry=RetryPolicy(attempts=20))


async def test_a_killed_primary_is_replaced_and_no_write_is_doubled(sentinel, settings):
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

    async with RedisPool(settings) as pool, RedisPool(f"redis://127.0.0.1:{second}") as successor:
        tasks = [asyncio.create_task(count(pool.client(), key)) for key in KEYS]
        await asyncio.sleep(0.2)
        before = sum(acknowledged.values())
        assert before > 0
        processes[0].kill()
        await until_written(pool, successor)
        resumed = sum(acknowledged.values())
        await asyncio.sleep(0.2)
        over.set()
        await asyncio.gather(*tasks)
        assert sum(acknowledged.values()) > resumed
        stored = await successor.get_many(KEYS)
        assert pool.stats().lanes["fast"].connects >= 2
    assert all(int(stored[key]) <= acknowledged[key] + doubtful[key] for key in KEYS)
    assert sum(doubtful.values()) <= len(KEYS)


async def until_written(pool, successor):
    """Wait until a write through the sentinel is at the successor."""
    for number in range(300):
        with suppress(RemoteError):
            await pool.set("after", str(number))
            if await successor.get("after") == str(number).encode():
                return
        await asyncio.sleep(0.05)
    raise AssertionError("no successor within its time")


def test_threads_find_the_successor_too(sentinel, settings):
    """The client for threads goes on at the successor, and counts nothing twice."""
    processes = sentinel[1]
    client, tried, counted = RedisPool(settings).sync(), 0, 0
    assert client.incr("count") == 1
    killer = threading.Timer(0.05, processes[0].kill)
    killer.start()
    deadline = time.monotonic() + 15
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
