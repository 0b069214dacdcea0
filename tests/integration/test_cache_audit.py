"""The auditor on a real Redis: what another program put there, and what nobody told the cache of."""

import asyncio
import logging
import random
from contextlib import asynccontextmanager

import pytest
import redis

from isp_perf.cache import Auditor, CacheManager


@asynccontextmanager
async def audited(url):
    """Give a manager and its auditor, its function and that of another process, and the truth behind both."""
    truth = {"ana": 50}
    managers = [CacheManager(redis=url), CacheManager(redis=url)]

    def decorated(manager):
        @manager.cached("balance:{customer}")
        async def balance(customer: str) -> int:
            return truth[customer]

        return balance

    try:
        async with Auditor(managers[0], sample=1.0, pause=0.001, recheck_after=0.05) as auditor:
            yield auditor, managers[0], *map(decorated, managers), truth
    finally:
        for manager in managers:
            await manager.aclose()


@pytest.fixture(autouse=True)
def quiet(caplog):
    """A stale value is logged; these tests are made of them."""
    caplog.set_level(logging.ERROR, "isp_perf.cache")


async def found(auditor, balance, result, *, more=0, again=None):
    """Read until the auditor has found more of a result than ``more``; return its report.

    A process that was busy for a while takes Redis for lost and removes what was there: ``again`` puts it there anew.
    """
    for number in range(4000):
        if again is not None and number % 200 == 0:
            await again()
        await balance("ana")
        report = auditor.report()
        if report.results.get(result, 0) > more:
            return report
        auditor._audit._next_round = 0.0  # a round begins every 5 s otherwise
        await asyncio.sleep(0.005)
    raise AssertionError(f"nothing {result}: {auditor.report()}")


async def test_a_write_that_nobody_told_is_found_until_somebody_invalidates(redis_url):
    """What was written behind the cache is a stale read here; after an invalidation elsewhere all is true."""
    async with audited(redis_url) as (auditor, _, here, there, truth):
        await found(auditor, here, "true")
        truth["ana"] = 70
        report = await found(auditor, here, "stale")
        assert report.stale_by == {"balance:{customer}": report.results["stale"]}
        assert 0 < report.stale_ratio <= 1
        assert all(stale.seconds >= 0.15 for stale in report.latest), "recheck_after and max_stale"
        receipt = await there.invalidate("ana")
        await receipt.wait(20)
        await found(auditor, here, "true", more=report.results["true"])


async def test_a_wrong_value_that_another_process_shares_is_found(redis_url):
    """A value that was put into Redis although no loader returns it is a stale read where it is served."""
    async with audited(redis_url) as (auditor, _, here, there, _):
        report = await found(auditor, here, "stale", again=lambda: there.put(70, "ana"))
        assert report.stale_by == {"balance:{customer}": report.results["stale"]}


async def test_damaged_bytes_are_never_served_and_so_never_stale(redis_url):
    """Bytes that were changed in Redis are a miss: the auditor finds nothing but truth, and the damage is counted."""
    server = redis.Redis.from_url(redis_url)

    async def damage():
        await there("ana")
        for name in server.keys("*balance*"):
            data = bytearray(server.get(name) or b"-")
            data[random.randrange(len(data) // 2, len(data))] ^= 1
            server.set(name, bytes(data), ex=60)

    async with audited(redis_url) as (auditor, manager, here, there, _):
        while not any(manager.tally().distrusted_values.values()):
            await damage()
            await here("ana")
        report = await found(auditor, here, "true", more=2, again=damage)
        assert set(report.results) == {"true"}
    server.close()
