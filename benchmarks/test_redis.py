"""The pool beside redis-py and valkey-glide on one server: `python benchmarks/test_redis.py [rounds]`.

All clients run in one process on one event loop; rounds are interleaved, medians of wall time per operation are
compared, and each ratio is printed beside its limit. The floor is the same tasks awaiting futures that are resolved in
one batch, without any I/O. Peers that are not installed are left out. Absolute figures differ with the machine and its
load; only ratios within one run mean anything.
"""

import asyncio
import contextlib
import gc
import socket
import statistics
import sys
import threading
import time
from urllib.parse import urlsplit

import redis
import redis.asyncio

from isp_perf.breaker import CircuitConfig, CircuitRegistry
from isp_perf.errors import NotSentError
from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.redis._stats import LaneStats
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


async def msetex(stock, items):
    """Store everything by redis-py's msetex, if the server has it."""
    with contextlib.suppress(redis.exceptions.ResponseError):
        await stock.msetex(items, px=60_000)


def without_msetex(pool):
    """Return a pool that takes its server for an old one."""
    old = RedisPool(pool.settings)

    async def supports(_name):
        return False

    old.client().supports = supports
    return old


class NoStats(LaneStats):
    """Counters that count nothing."""

    def count_batch(self, commands, size_bytes):
        pass

    def count_one(self, size_bytes):
        pass


async def compare_extras(url, rounds):
    """Print what statistics and a guard cost at 100 tasks, and what a call costs while the server is away."""
    breaker = CircuitRegistry().define("redis", CircuitConfig())
    async with RedisPool(url, guard=breaker) as full, RedisPool(url) as bare:
        await full.get("a")
        await bare.get("a")
        (await bare.client().states.current()).fast.link.stats = NoStats()
        shares = []
        for turn in range(12 * rounds):
            spent = {}
            for name, pool in (("full", full), ("bare", bare))[:: 1 if turn % 2 else -1]:
                started = time.thread_time()
                await timed(pool.client().get, 100, 40)
                if pool is full:
                    await pool.health()
                spent[name] = time.thread_time() - started
            shares.append(spent["full"] / spent["bare"] - 1)
        share = statistics.median(shares)
        print(f"statistics, health and a breaker as guard: {share:5.1%} of the CPU of 100 tasks' GETs (3 %)")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with RedisPool(f"redis://127.0.0.1:{closed.getsockname()[1]}") as pool:
            costs = []
            for _ in range(rounds):
                await asyncio.gather(pool.get("a"), return_exceptions=True)
                started, calls = time.perf_counter(), 2_000
                for _ in range(calls):
                    try:
                        await pool.client().get("a")
                    except NotSentError:
                        continue
                costs.append((time.perf_counter() - started) / calls * 1e6)
            print(f"a call while the server is away {statistics.median(costs):6.1f} us (2 us)")


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
    plain = without_msetex(pool)
    await plain.get("a")
    write, ours, jittered, theirs, streamed = await median_of(
        rounds,
        pipelined(lambda p, k: p.set(k, VALUE, px=60_000), KEYS),
        lambda: pool.set_many(items, ttl=60),
        lambda: pool.set_many(items, ttl=60, jitter=0.1),
        lambda: msetex(stock, items),
        lambda: plain.set_many(items, ttl=60),
    )
    print(
        f"set_many[10000]  {ours * 1e3:6.1f} ms  {write / ours:5.1f}x pipeline (12x)  {theirs / ours:4.2f}x msetex (2x)"
    )
    print(f"  with jitter {write / jittered:4.1f}x pipeline (5x)  without MSETEX {write / streamed:4.1f}x (5x)")
    read, ours = await median_of(rounds, pipelined(lambda p, k: p.get(k), KEYS[:1_000]), own_pipeline)
    print(f"pipeline[1000]   {ours * 1e3:6.1f} ms  {read / ours:5.1f}x (4x)")


def glide_sync_client(host, port):
    """Return a valkey-glide client for threads, or None where it is not installed."""
    try:
        from glide_sync import GlideClient, GlideClientConfiguration, NodeAddress
    except ImportError:
        print("valkey-glide-sync is not installed: its column is left out")
        return None
    return GlideClient.create(GlideClientConfiguration([NodeAddress(host, port)], request_timeout=10_000))


def compare_threads(cases, rounds):
    """Print GETs of one and of thirty threads against redis-py's blocking pool and glide's client for threads."""
    limits = {(1, "redis-py"): 2, (30, "redis-py"): 5, (30, "glide-sync"): 2.8}
    for threads, each in ((1, 1_500), (30, 100)):
        seen = {name: [] for name in cases}
        for _ in range(rounds):
            for name, get in cases.items():
                seen[name].append(in_threads(get, threads, each))
        medians = {name: statistics.median(values) for name, values in seen.items()}
        print(f"threads {threads:3d}      {medians['ours']:6.1f} us", end="")
        for name in medians.keys() - {"ours"}:
            limit = limits.get((threads, name))
            note = f" (limit {limit}x)" if limit else ""
            print(f"  {medians[name] / medians['ours']:5.2f}x {name}{note}", end="")
        print()


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
        await compare_extras(url, rounds)
        twin = glide_sync_client(where.hostname, where.port)
        threaded = {"redis-py": blocking.get, "ours": pool.sync().get} | ({"glide-sync": twin.get} if twin else {})
        await asyncio.to_thread(compare_threads, threaded, rounds)
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
