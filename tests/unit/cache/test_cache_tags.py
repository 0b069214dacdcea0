"""Tags: many values invalidated together, in both levels."""

import asyncio
from collections import Counter

import pytest

from isp_perf.cache import CacheManager
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock


def bills(cache, calls):
    @cache.cached("bill:{customer}:{month}", ttl=60, tags=("customer:{customer}", "bills"))
    async def bill(customer: str, month: int) -> int:
        calls[customer, month] += 1
        return calls[customer, month]

    return bill


async def test_tag_removes_what_carries_it():
    """invalidate_tags removes every value of the tag, others stay, and nothing of the tag is left."""
    cache, calls = CacheManager(), Counter()
    bill = bills(cache, calls)
    for customer in ("ana", "bob"):
        for month in (1, 2):
            await bill(customer, month)
    await cache.invalidate_tags("customer:ana")
    assert [await bill("ana", 1), await bill("ana", 2), await bill("bob", 1)] == [2, 2, 1]
    assert (await cache.invalidate_tags("bills", "unknown")).delivered
    assert cache.stats().l1_size == 0
    assert cache._engine.local.tagged == {}
    await cache.set("k", 1, tags=["bills"])
    await cache.invalidate_tags("bills")
    assert await cache.get("k") is None


async def test_tag_reaches_other_processes_and_their_values(remote):
    """After an invalidation of a tag no process reads an older value from the remote level."""
    calls = Counter()
    one, other = CacheManager(redis=remote), CacheManager(redis=remote)
    first, second = bills(one, calls), bills(other, calls)
    await first("ana", 1)
    await first("bob", 1)
    assert await second("ana", 1) == 1
    await one.invalidate_tags("customer:ana")
    fresh = bills(CacheManager(redis=remote), calls)
    assert await fresh("ana", 1) == 2
    assert await fresh("bob", 1) == 1


async def test_lost_version_is_another_version(remote):
    """When Redis lost the tag's version the values that carry it are misses."""
    calls = Counter()
    await bills(CacheManager(redis=remote), calls)("ana", 1)
    for key in [key for key in remote.data if "%tag:bills" in key]:
        del remote.data[key]
    assert await bills(CacheManager(redis=remote), calls)("ana", 1) == 2


async def test_load_begun_before_the_tag_was_invalidated_is_not_stored(remote):
    """A load of a tagged value that began earlier is kept by neither level."""
    cache, gate = CacheManager(redis=remote), asyncio.Event()
    values = iter(["old", "new"])

    @cache.cached("x:{x}", tags=["all"])
    async def load(x: int) -> str:
        value = next(values)
        if value == "old":
            await gate.wait()
        return value

    before = asyncio.create_task(load(1))
    for _ in range(10):
        await asyncio.sleep(0)
    await cache.invalidate_tags("all")
    gate.set()
    assert await before == "old"
    assert await load(1) == "new"

    @CacheManager(redis=remote).cached("x:{x}", tags=["all"])
    async def elsewhere(x: int) -> str:
        return "loaded there"

    assert await elsewhere(1) == "new"


async def test_tags_invalidated_during_an_outage_are_invalidated_after_it(remote):
    """A tag that could not be invalidated in Redis is, before Redis is believed again."""
    calls = Counter()
    cache = CacheManager(redis=remote, after_outage="trust")
    bill = bills(cache, calls)
    await bill("ana", 1)
    remote.sick = True
    receipt = await cache.invalidate_tags("bills")
    assert receipt.queued
    remote.sick = False
    await receipt.wait(2)
    assert await bill("ana", 1) == 2


async def test_expired_and_evicted_values_leave_their_tags():
    """No entry stays in the tag index after it has gone."""
    clock = ManualClock()
    cache = CacheManager(clock=clock, max_entries=5)
    bill = bills(cache, Counter())
    for month in range(20):
        await bill("ana", month)
    assert len(cache._engine.local.tagged["bills"]) == 5
    clock.advance(60)
    for month in range(20):
        await bill("bob", month)
    assert set(cache._engine.local.tagged) == {"bills", "customer:bob"}


@pytest.mark.parametrize(
    ("tags", "message"), [("bills", "a sequence of texts"), (["{nobody}"], "names no parameter"), (["{hash}"], "tags=")]
)
def test_bad_tags(tags, message):
    """A tag that cannot work is a ConfigurationError."""
    with pytest.raises(ConfigurationError, match=message):

        @CacheManager().cached("x:{x}", tags=tags)
        def load(x):
            return x
