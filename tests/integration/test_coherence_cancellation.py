"""Callers that are cancelled all the time: nobody gets the value of another key, and connections stay as they are.

The default run takes three seconds of it; ``nox -s soak`` ten minutes.
"""

import asyncio
import random
import sys
import time

import pytest
import redis

from isp_perf.cache import CacheManager

KEYS = 64
CALLERS = 100
DURATIONS = [
    pytest.param(3, id="slice"),
    pytest.param(600, id="ten minutes", marks=[pytest.mark.soak, pytest.mark.timeout(0)]),
]


class Process:
    """A manager, and cached functions of every kind whose values carry their keys."""

    def __init__(self, url):
        self.cache = CacheManager(redis=url)
        self.functions = [self.cached("near"), self.cached("strict", max_stale=0), self.cached("slow", slowest=0.01)]

    def cached(self, kind, *, slowest=0.001, **policy):
        """Return a cached function; its loader takes up to ``slowest`` seconds."""

        @self.cache.cached(kind + ":{key}", ttl=60, **policy)
        async def read(key: int) -> str:
            await asyncio.sleep(random.random() * slowest)
            return f"{kind}={key}"

        read.kind = kind
        return read


class Storm:
    """Callers of two processes that read, and now and then remove; every second call is cancelled."""

    def __init__(self, processes, seconds):
        self.processes = processes
        self.end = time.monotonic() + seconds
        self.calls = self.cancelled = 0
        self.wrong = []

    async def one(self, process, draw):
        """Make one call and compare what it returns with what was asked for."""
        read, key = draw.choice(process.functions), draw.randrange(KEYS)
        kind = draw.random()
        if kind < 0.04:
            await read.invalidate(key)
        elif kind < 0.06:
            async with process.cache.writing(read.key(key)):
                await asyncio.sleep(0)
        elif kind < 0.1:
            keys = draw.sample(range(KEYS), 5)
            self.compare(await read.many(keys), [f"{read.kind}={each}" for each in keys])
        else:
            self.compare(await read(key), f"{read.kind}={key}")

    def compare(self, value, expected):
        if value != expected:
            self.wrong.append((value, expected))

    async def caller(self, number):
        """Call until the end; half of the calls are cancelled, at once or some turns of the loop later."""
        draw, process = random.Random(number), self.processes[number % len(self.processes)]
        while time.monotonic() < self.end:
            self.calls += 1
            call = asyncio.ensure_future(self.one(process, draw))
            if draw.random() < 0.7:  # some of them have ended before: half are cancelled
                for _ in range(draw.randrange(4)):
                    await asyncio.sleep(0)
                if draw.random() < 0.3:
                    await asyncio.sleep(draw.random() * 0.002)
                self.cancelled += call.cancel()
            await asyncio.wait([call])
            if not call.cancelled():
                call.result()
            await asyncio.sleep(0)

    async def run(self):
        """Let all callers call until the end."""
        await asyncio.gather(*map(self.caller, range(CALLERS)))


@pytest.mark.parametrize("seconds", DURATIONS)
async def test_cancelled_callers_cost_nobody_anything(redis_url, seconds):
    """No value of another key, at most one new connection per 10,000 cancelled calls, and no lease is left."""
    processes = [Process(redis_url), Process(redis_url)]
    with redis.Redis.from_url(redis_url) as server:

        def opened():
            return server.info("stats")["total_connections_received"]

        for process in processes:
            await asyncio.gather(*(read(0) for read in process.functions))
        before = opened()
        storm = Storm(processes, seconds)
        await storm.run()
        new, outages = opened() - before, sum(process.cache.tally().outages for process in processes)
    said = f"{storm.calls:,} calls, {storm.cancelled:,} cancelled, {new} connections, {outages} outages\n"
    sys.stderr.write(said)
    assert storm.wrong == []
    assert storm.cancelled > storm.calls / 4
    assert new <= 1 + storm.cancelled // 10_000 + outages, said  # a machine that stalls is an outage: one each
    for process in processes:
        for read in process.functions:
            expected = [f"{read.kind}={key}" for key in range(KEYS)]
            assert await asyncio.wait_for(read.many(range(KEYS)), 20) == expected
        second = process.cache._engine.second
        for _ in range(2000):  # those of loads that ended go with the next beat
            if not second.held:
                break
            await asyncio.sleep(0.01)
        assert second.held == {}
        await process.cache.aclose()
