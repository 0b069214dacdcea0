"""The pool beside redis-py and valkey-glide on one server: `python benchmarks/test_redis.py [rounds]`.

All clients run in one process on one event loop; rounds are interleaved, medians of wall time per operation are
compared, and each ratio is printed beside its limit. The floor is the same tasks awaiting futures that are resolved in
one batch, without any I/O. Peers that are not installed are left out. Absolute figures differ with the machine and its
load; only ratios within one run mean anything.
"""

import asyncio
import gc
import statistics
import sys
import threading
import time
from urllib.parse import urlsplit

import redis
import redis.asyncio

from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.testing import start_redis

KEYS = [f"key:{i:06d}" for i in range(10_000)]
VALUE = b"x" * 100
TASKS = ((1, 400), (10, 100), (100, 40), (1_000, 8))

# (case, number of tasks, peer) -> how many times faster than the peer the case must be
LIMITS = {
    ("drop-in", 1, "redis-py"): 3,
    ("drop-in", 100, "redis-py"): 15,
    ("drop-in", 100, "glide"): 4.5,
    ("drop-in", 1_000, "redis-py"): 13,
    ("drop-in", 1_000, "glide"): 3.4,
    ("coalesced", 100, "redis-py"): 22,
    ("coalesced", 100, "glide"): 6,
    ("coalesced", 1_000, "redis-py"): 20,
    ("coalesced", 1_000, "glide"): 5,
}


class Floor:
    """Awaiting a future that one callback per tick resolves: what asyncio itself costs."""

    def __init__(self):
        self.waiting = []

    async def get(self, _key):
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not self.waiting:
            loop.call_soon(self.resolve)
        self.waiting.append(future)
        return await future

    def resolve(self):
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            future.set_result(VALUE)


async def glide_client(host, port):
    """Return a valkey-glide client, or None where it is not installed."""
    try:
        import glide
    except ImportError:
        return None
    config = glide.GlideClientConfiguration([glide.NodeAddress(host, port)], request_timeout=60_000)
    return await glide.GlideClient.create(config)


async def timed(get, tasks, each):
    """Return microseconds per operation."""

    async def work(i):
        for j in range(each):
            await get(KEYS[(i * 7 + j * 131) % len(KEYS)])

    gc.collect()
    started = time.perf_counter()
    await asyncio.gather(*[work(i) for i in range(tasks)])
    return (time.perf_counter() - started) / tasks / each * 1e6


async def latencies(get, tasks, each):
    """Return p50 and p99 of single calls in milliseconds."""
    seen = []

    async def work(i):
        for j in range(each):
            started = time.perf_counter()
            await get(KEYS[(i * 7 + j * 131) % len(KEYS)])
            seen.append(time.perf_counter() - started)

    await asyncio.gather(*[work(i) for i in range(tasks)])
    cuts = statistics.quantiles(seen, n=100)
    return cuts[49] * 1e3, cuts[98] * 1e3


async def compare_gets(cases, rounds):
    """Print GETs per client and number of tasks."""
    for tasks, each in TASKS:
        seen = {name: [] for name in cases}
        for _ in range(rounds):
            for name, get in cases.items():
                seen[name].append(await timed(get, tasks, each))
        medians = {name: statistics.median(values) for name, values in seen.items()}
        for name, median in medians.items():
            ratios = [
                ratio(name, tasks, peer, value=medians[peer] / median)
                for peer in ("redis-py", "glide")
                if peer in medians
            ]
            print(f"GET x {tasks:5d}  {name:10s} {median:8.2f} us  {'  '.join(ratios)}")
    for name, get in cases.items():
        p50, p99 = await latencies(get, 1_000, 5)
        print(f"GET x  1000  {name:10s} p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  ratio {p99 / p50:.1f}")


def ratio(case, tasks, peer, *, value):
    limit = LIMITS.get((case, tasks, peer))
    return f"{value:5.1f}x {peer}" + (f" (limit {limit}x)" if limit else "")


async def median_of(rounds, *calls):
    """Return the median seconds of each call, rounds interleaved."""
    seen = [[] for _ in calls]
    for _ in range(rounds):
        for values, call in zip(seen, calls, strict=True):
            gc.collect()
            started = time.perf_counter()
            await call()
            values.append(time.perf_counter() - started)
    return [statistics.median(values) for values in seen]


async def compare_bulk(stock, pool, rounds):
    """Print bulk reads, bulk writes and pipelines against redis-py's."""
    items = dict.fromkeys(KEYS, VALUE)

    def pipelined(stage, keys):
        async def run():
            pipe = stock.pipeline(transaction=False)
            for key in keys:
                stage(pipe, key)
            await pipe.execute()

        return run

    async def own_pipeline():
        async with pool.pipeline() as pipe:
            for key in KEYS[:1_000]:
                pipe.get(key)
            await pipe.execute()

    read, mget, ours = await median_of(
        rounds, pipelined(lambda p, k: p.get(k), KEYS), lambda: stock.mget(KEYS), lambda: pool.get_many(KEYS)
    )
    print(f"get_many[10000]  {ours * 1e3:6.1f} ms  {read / ours:5.1f}x pipeline (15x)  {mget / ours:4.2f}x mget (1.6x)")
    write, ours, jittered = await median_of(
        rounds,
        pipelined(lambda p, k: p.set(k, VALUE, px=60_000), KEYS),
        lambda: pool.set_many(items, ttl=60),
        lambda: pool.set_many(items, ttl=60, jitter=0.1),
    )
    print(
        f"set_many[10000]  {ours * 1e3:6.1f} ms  {write / ours:5.1f}x pipeline (12x)  "
        f"jitter {write / jittered:4.1f}x (5x)"
    )
    read, ours = await median_of(rounds, pipelined(lambda p, k: p.get(k), KEYS[:1_000]), own_pipeline)
    print(f"pipeline[1000]   {ours * 1e3:6.1f} ms  {read / ours:5.1f}x (4x)")


def compare_threads(stock, ours, rounds):
    """Print GETs of one and of thirty threads against redis-py's blocking pool."""
    for threads, each, limit in ((1, 1_500, 2), (30, 100, 5)):
        seen = {"redis-py": [], "ours": []}
        for _ in range(rounds):
            for name, get in (("redis-py", stock.get), ("ours", ours.get)):
                seen[name].append(in_threads(get, threads, each))
        medians = {name: statistics.median(values) for name, values in seen.items()}
        faster = medians["redis-py"] / medians["ours"]
        print(f"threads {threads:3d}      {medians['ours']:6.1f} us  {faster:5.2f}x redis-py (limit {limit}x)")


def in_threads(get, threads, each):
    def work(i):
        for j in range(each):
            get(KEYS[(i * 7 + j * 131) % len(KEYS)])

    pool = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    started = time.perf_counter()
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return (time.perf_counter() - started) / threads / each * 1e6


async def compare(url, rounds):
    """Run every comparison on one server."""
    where = urlsplit(url)
    options = {"host": where.hostname, "port": where.port}
    stock_pool = redis.asyncio.BlockingConnectionPool(max_connections=30, **options)
    stock = redis.asyncio.Redis(connection_pool=stock_pool)
    await stock.mset(dict.fromkeys(KEYS, VALUE))
    joined = RedisPool(RedisSettings(url=url, coalesce=True))
    glide = await glide_client(where.hostname, where.port)
    async with RedisPool(url) as pool, joined:
        cases = {
            "redis-py": stock.get,
            "drop-in": pool.client().get,
            "coalesced": joined.client().get,
            "floor": Floor().get,
        }
        if glide is not None:
            cases["glide"] = glide.get
        await compare_gets(cases, rounds)
        await compare_bulk(stock, pool, rounds)
        blocking = redis.Redis(connection_pool=redis.BlockingConnectionPool(max_connections=30, **options))
        await asyncio.to_thread(compare_threads, blocking, pool.sync(), rounds)
        blocking.connection_pool.disconnect()
    await stock_pool.disconnect()
    if glide is not None:
        await glide.close()


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    engine = start_redis()
    if engine.url is None:
        sys.exit(f"no server: {engine.reason}")
    print(f"server: {engine.name} {engine.version}; redis-py {redis.__version__}; {rounds} rounds")
    try:
        asyncio.run(compare(engine.url, rounds))
    finally:
        engine.stop()


if __name__ == "__main__":
    main()
