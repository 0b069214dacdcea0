"""One process of a random history: readers and writers of a cached truth; prints what they saw.

`python coherence_worker.py '{"redis": ..., "truth": ..., "name": ..., "seed": ..., "keys": ..., "pause": ..., ...}'`
says "ready", and reads `{"end": ..., "settled": ...}` from its input: moments of the monotonic clock. Half the keys
belong to a function with a local level, half to one with `max_stale=0`.
"""

import asyncio
import contextlib
import json
import random
import sys
import time

import asyncpg

from isp_perf.cache import CacheManager
from isp_perf.testing import History

READERS, WRITERS, BURST = 12, 2, 8


class Worker:
    """The tasks of this process."""

    def __init__(self, cache, truth, order):
        self.cache, self.truth, self.order = cache, truth, order
        self.chance = random.Random(order["seed"])
        self.history = History()
        self.late = []

        @cache.cached("near:{key}", ttl=60)
        async def near(key: str) -> str:
            return await self.load(key)

        @cache.cached("strict:{key}", ttl=60, max_stale=0)
        async def strict(key: str) -> str:
            return await self.load(key)

        self.functions = {"near": near, "strict": strict}

    async def load(self, key):
        """Read the truth; sometimes the answer is long on its way."""
        value = await self.truth.fetchval("SELECT key || '=' || version FROM truth WHERE key = $1", key)
        if self.chance.random() < 0.3:
            await asyncio.sleep(self.chance.random() * 0.02)
        return value

    def drawn(self):
        """Return some key, and the function it belongs to."""
        key = self.chance.choice(self.order["keys"])
        return key, self.functions[key.partition(":")[0]]

    async def read(self, session, key, function):
        """Read once; an error is recorded, and is the checker's business."""
        with contextlib.suppress(Exception), session.reading(key) as read:
            read.value = await function(key)

    async def reader(self, number):
        """Read in bursts until the end."""
        session = self.history.session(f"{self.order['name']}/reader {number}")
        while time.monotonic() < self.order["end"]:
            for _ in range(BURST):
                await self.read(session, *self.drawn())
            await asyncio.sleep(self.chance.random() * self.order["pause"])

    async def writer(self, number):
        """Write, tell, and read what was written."""
        session = self.history.session(f"{self.order['name']}/writer {number}")
        while time.monotonic() < self.order["end"]:
            key, function = self.drawn()
            with session.writing(key, None) as write:
                if self.chance.random() < 0.5:
                    async with self.cache.writing(function.key(key)):
                        await self.commit(write, key)
                else:
                    await self.commit(write, key)
                receipt = await function.invalidate(key)
                if receipt.delivered:
                    write.acknowledged()
            if receipt.queued:
                self.late.append(asyncio.create_task(self.delivered_later(receipt, len(self.history.writes) - 1)))
            await self.read(session, key, function)
            await asyncio.sleep(self.chance.random() * 0.1)

    async def commit(self, write, key):
        """Change the truth; what it is now was this writer's doing."""
        version = await self.truth.fetchval(
            "UPDATE truth SET version = version + 1 WHERE key = $1 RETURNING version", key
        )
        write.committed(version)

    async def delivered_later(self, receipt, place):
        """Take note of when a queued invalidation was delivered after all."""
        await receipt.wait(30)
        writes = self.history.writes
        writes[place] = writes[place]._replace(acknowledged=time.monotonic())

    async def run(self):
        """Do everything from the word of command to the common end, and look again after it."""
        for function in self.functions.values():
            await function(self.order["keys"][0])
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        self.order |= json.loads(await asyncio.to_thread(sys.stdin.readline))
        tasks = [self.reader(number) for number in range(READERS)] + [self.writer(number) for number in range(WRITERS)]
        await asyncio.gather(*tasks)
        await asyncio.gather(*self.late)
        await asyncio.sleep(max(0.0, self.order["settled"] - time.monotonic()))
        session = self.history.session(f"{self.order['name']}/last")
        for key in self.order["keys"]:
            await self.read(session, key, self.functions[key.partition(":")[0]])


async def main(order):
    """Run one worker and print its records and its counts."""
    async with asyncpg.create_pool(order["truth"], min_size=4, max_size=16) as truth:
        cache = CacheManager(redis=order["redis"], namespace=order["namespace"])
        worker = Worker(cache, truth, order)
        await worker.run()
        stats, health = cache.stats(), cache.health()
        await cache.aclose()
    counts = {
        "l1_hits": stats.l1_hits,
        "l2_hits": stats.l2_hits,
        "loads": stats.loads,
        "outages": cache.tally().outages,
        "refused_fills": cache.tally().refused_fills,
        "channel": health.channel,
    }
    json.dump({"reads": worker.history.reads, "writes": worker.history.writes, "counts": counts}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
