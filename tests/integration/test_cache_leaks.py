"""Memory stays flat: nothing is left behind by keys, cancelled calls and invalidations. One million in the soak run."""

import asyncio
import gc
import pathlib
import random
import sys
import threading
import time
import tracemalloc

import pytest

import isp_perf
from isp_perf._runtime.reaper import reaper
from isp_perf.cache import CacheManager
from isp_perf.cache._store import MOST_UNCOUNTED

ROOM = 1000
DAY = 86_400  # moments of five minutes: how long a run takes on a slow machine makes no difference to what is held
SOAK = [pytest.mark.soak, pytest.mark.timeout(3600)]
AMOUNTS = [pytest.param(20_000, id="slice"), pytest.param(1_000_000, id="million", marks=SOAK)]
SLACK_BYTES = 300_000
ROOMS = [f"{pathlib.Path(isp_perf.__file__).parent}/{room}/*" for room in ("cache", "_core", "_runtime")]
OURS = [
    tracemalloc.Filter(inclusive=True, filename_pattern=pattern)
    for pattern in (*ROOMS, __file__, "<isp_perf wrapper *")
]


def left_over(cache):
    """Return how much of each kind the cache holds."""
    local = cache._engine.local
    stores = [cache._keys.store, *(store for site in cache._sites for store in site.stores())]
    return {
        "flights": sum(len(store.flights) for store in stores),
        "entries": sum(len(store.entries()) for store in stores),
        "tags": len(local.tagged),
        "index": len(local.index or ()),
        "queue": len(local._queue._small) + len(local._queue._main),
        "ghost": len(local._queue._ghost) + len(local._queue._order) + len(local._queue._stale),
        "departures": len(local.departures),
        "deadlines": len(local._calendar),
        "uncounted": sum(len(store.spent) for store in stores),
        "visits": sum(visit[2]() is local._calendar for visit in list(reaper._heap)),
    }


def check(cache):
    """Everything is bounded by the room, whatever happened before."""
    held = left_over(cache)
    assert held["flights"] == 0
    assert held["entries"] <= ROOM
    assert held["tags"] <= 2 * ROOM
    assert held["index"] <= ROOM
    assert held["queue"] <= 2 * (2 * ROOM + 64)
    assert held["ghost"] <= 3 * 2 * ROOM + 64
    assert held["departures"] <= 2 * 1024
    assert held["deadlines"] <= 2 * ROOM + 64 * 300
    assert held["uncounted"] <= MOST_UNCOUNTED * len(cache._sites)
    assert held["visits"] <= 2 * 300


def allocated():
    """Return the bytes that the cache and this file hold; other tests' threads, the metrics' one, do not count."""
    gc.collect()
    traces = tracemalloc.take_snapshot().filter_traces(OURS)
    return sum(statistic.size for statistic in traces.statistics("filename"))


def grown(work, amount):
    """Return the bytes by which memory grows in the second half of ``work``, when everything is warm."""
    tracemalloc.start()
    try:
        work(0, amount // 2)
        before = allocated()
        work(amount // 2, amount)
        return allocated() - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("amount", AMOUNTS)
def test_distinct_keys_leave_nothing(amount):
    """Keys that are asked for once leave no lock, flight, tag or deadline behind."""
    cache = CacheManager(max_entries=ROOM)

    @cache.cached("k:{x}", ttl=DAY)
    def plain(x: int):
        return x

    @cache.cached("t:{x}", ttl=DAY, tags=("one:{x}",))
    def tagged(x: int):
        return x

    def work(start, end):
        for x in range(start, end):
            plain(x)
            if not x % 8:
                tagged(x)

    growth = grown(work, amount)
    check(cache)
    assert growth < SLACK_BYTES


def test_loads_do_not_wait_long_to_be_counted():
    """However long a ttl and its moments are, loads that are not yet in the statistics stay few."""
    cache = CacheManager(max_entries=ROOM)

    @cache.cached("k:{x}", ttl=DAY)
    def plain(x: int):
        return x

    for x in range(5 * MOST_UNCOUNTED):
        plain(x)
        assert left_over(cache)["uncounted"] < MOST_UNCOUNTED
    assert cache.stats().loads == 5 * MOST_UNCOUNTED


@pytest.mark.parametrize("amount", AMOUNTS)
def test_invalidations_leave_nothing(amount):
    """Invalidated keys, tags and patterns are forgotten, also those that were never there."""
    cache = CacheManager(max_entries=ROOM)

    @cache.cached("t:{x}", ttl=DAY, tags=("one:{x}",))
    def tagged(x: int):
        return x

    def work(start, end):
        for x in range(start // 8, end // 8):
            tagged(x)
            tagged.invalidate(x)
            cache.sync.invalidate_tags(f"one:{x + 1}", "never")
            cache.sync.invalidate(f"gone:{x}")

    growth = grown(work, amount)
    check(cache)
    assert left_over(cache)["tags"] == 0
    assert growth < SLACK_BYTES


@pytest.mark.parametrize("amount", AMOUNTS)
def test_cancelled_calls_leave_nothing(amount):
    """Cancelled leaders and waiters leave no flight and no waiter behind."""
    cache = CacheManager(max_entries=ROOM)

    @cache.cached("k:{x}", ttl=DAY)
    async def load(x: int):
        await asyncio.sleep(60)

    async def cancel_all(start, end):
        for first in range(start, end, 500):
            tasks = [asyncio.create_task(load(x // 2)) for x in range(first, min(end, first + 500))]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    with asyncio.Runner() as runner:
        growth = grown(lambda start, end: runner.run(cancel_all(start // 4, end // 4)), amount)
    check(cache)
    assert growth < SLACK_BYTES


@pytest.mark.parametrize("amount", AMOUNTS)
def test_instances_leave_nothing(amount):
    """Instances whose methods are cached are forgotten when they go, long before their entries' time."""
    cache = CacheManager(max_entries=ROOM)

    class Service:
        @cache.cached(ttl=DAY)
        def answer(self, x: int):
            return x

    def work(start, end):
        for x in range(start // 4, end // 4):
            service = Service()
            service.answer(x)
            service.answer(x + 1)

    growth = grown(work, amount)
    check(cache)
    assert left_over(cache)["entries"] == 0
    assert len(cache._engine.local._suspension.stores) <= 2
    assert growth < SLACK_BYTES


def test_threads_that_switch_all_the_time_see_no_old_value():
    """Eight threads that get, set and invalidate under a tiny switch interval: nobody gets what was replaced before."""
    cache = CacheManager(max_entries=50)
    versions, floors = [0] * 100, [0] * 100
    guard = threading.Lock()

    @cache.cached("k:{x}", ttl=DAY)
    def load(x: int):
        return versions[x]

    def work(seed):
        rnd = random.Random(seed)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            x = rnd.randrange(100)
            if rnd.random() < 0.9:
                floor = floors[x]
                if load(x) < floor:
                    wrong.append((x, floor))
                continue
            with guard:
                versions[x] += 1
                load.invalidate(x)
                floors[x] = versions[x]

    wrong = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    stats = cache.stats()
    assert stats.misses == stats.loads + stats.joined
    held = left_over(cache)
    assert held["flights"] == 0
    assert held["entries"] == stats.l1_size <= 50
