"""The cache over Redis beside redis-py, and across processes: `python benchmarks/test_cache_coherence.py [rounds]`.

Rounds are interleaved in one process; medians are compared as ratios, since absolute figures of a shared machine mean
little. The server is the test kit's own.
"""

import asyncio
import multiprocessing
import os
import statistics
import sys
import time
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from isp_perf.cache import CacheManager
from isp_perf.redis import RedisPool
from isp_perf.testing import start_redis

KEYS = 100
PROFILE = {"name": "n" * 300, "plan": "fibra-500"}
STAMPEDES = 4
LOAD_SECONDS = 0.05


def profiles(cache: CacheManager, **policy: Any) -> Any:
    """Return a cached function whose values are 387 bytes or so."""

    @cache.cached("profile:{number}", ttl=600, **policy)
    async def profile(number: int) -> dict[str, str]:
        return {"id": str(number), **PROFILE}

    return profile


async def spent(jobs: Any) -> float:
    """Return the milliseconds that awaiting ``jobs`` took."""
    started = time.perf_counter()
    await jobs
    return (time.perf_counter() - started) * 1e3


async def one_by_one(read: Any) -> None:
    for number in range(KEYS):
        await read(number)


async def remote_hits(url: str, rounds: int) -> None:
    """Print what a hit in the remote level costs: each call proved there, decoded, checked; alone and 100 at a time."""
    async with RedisPool(url) as pool:
        cache = CacheManager(redis=pool)
        read = profiles(cache, max_stale=0)
        await one_by_one(read)
        peer = Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=30))
        await peer.set("raw", b"x" * 387)
        cases = {
            "one by one": (lambda: one_by_one(read), lambda: one_by_one(lambda _: peer.get("raw"))),
            "100 at a time": (
                lambda: asyncio.gather(*map(read, range(KEYS))),
                lambda: asyncio.gather(*(peer.get("raw") for _ in range(KEYS))),
            ),
        }
        for name, (ours, theirs) in cases.items():
            pairs = [(await spent(ours()), await spent(theirs())) for _ in range(rounds + 1)][1:]
            mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"hit in the remote level, {name}: {mine / other:.2f}x redis-py get ({mine * 10:.0f} us per key)")
        await cache.aclose()
        await peer.aclose()


async def emptied(cache: CacheManager) -> None:
    """Return when nothing is in the local level any more."""
    for _ in range(1_000_000):
        if not cache.stats().l1_size:
            return
        await asyncio.sleep(0)


async def invalidations(url: str, times: int) -> None:
    """Print how long after an acknowledged invalidation the other local level still has the value."""
    async with RedisPool(url) as one, RedisPool(url) as other:
        writer, reader = CacheManager(redis=one), CacheManager(redis=other)
        write, read = profiles(writer), profiles(reader)
        lags = []
        for _ in range(times):
            await read(0)
            await read(0)
            await write.invalidate(0)
            acknowledged = time.perf_counter()
            await emptied(reader)
            lags.append((time.perf_counter() - acknowledged) * 1e3)
        lags.sort()
        middle, late = lags[len(lags) // 2], lags[int(len(lags) * 0.99)]
        print(f"other local level clean after {middle:.3f} ms (p50), {late:.3f} ms (p99); limit 2 ms")
        await writer.aclose()
        await reader.aclose()


def stampede(url: str, key: str, *, start: float, told: Any) -> None:
    """Ask for a cold key with 250 callers at ``start``; report loads and the slowest caller."""

    async def main() -> None:
        cache, loads = CacheManager(redis=url), []

        @cache.cached("cold:{key}", ttl=60)
        async def read(key: str) -> str:
            loads.append(key)
            await asyncio.sleep(LOAD_SECONDS)
            return key

        await read("warm")
        await asyncio.sleep(max(0.0, start - time.time()))
        begun = time.perf_counter()

        async def caller() -> float:
            await read(key)
            return (time.perf_counter() - begun) * 1e3

        slowest = max(await asyncio.gather(*(caller() for _ in range(250))))
        told.put((loads.count(key), slowest))
        await cache.aclose()

    asyncio.run(main())


def stampedes(url: str) -> None:
    """Print how many loads 4 processes with 250 callers each make of one cold key, and how long the slowest waits."""
    for number in range(STAMPEDES):
        told: Any = multiprocessing.Queue()
        start = time.time() + 2
        options = {"args": (url, f"key{number}"), "kwargs": {"start": start, "told": told}}
        workers = [multiprocessing.Process(target=stampede, **options) for _ in range(4)]
        for worker in workers:
            worker.start()
        answers = [told.get(timeout=30) for _ in workers]
        for worker in workers:
            worker.join()
        loads, slowest = sum(count for count, _ in answers), max(each for _, each in answers)
        print(f"4 x 250 callers of a cold key: {loads} load, slowest {slowest:.0f} ms for a load of 50 ms; limit 70")


def main(rounds: int) -> None:
    """Run everything against a server of its own."""
    engine = start_redis({"PATH": os.environ.get("PATH", "")})
    if engine.url is None:
        print(f"no Redis: {engine.reason}")
        return
    try:
        asyncio.run(remote_hits(engine.url, rounds))
        asyncio.run(invalidations(engine.url, 300))
        stampedes(engine.url)
    finally:
        engine.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
