"""Many entries due at once: all leave, nothing else does, and the books are right afterwards."""

import threading
import time

import pytest

from isp_perf._runtime.reaper import Moment
from isp_perf.cache import CacheManager, entry

MANY = 20_000


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def function_of(cache, **policy):
    @cache.cached(f"{len(cache._sites)}:{{x}}", **policy)
    def load(x: int):
        return x

    return load, next(site for site in cache._sites if site.function is load.__wrapped__)


@pytest.mark.parametrize("staying", [0, 500])
def test_everything_due_leaves_and_the_rest_stays(staying):
    """Entries that are due leave together; those of the same function that are not, and other functions', stay."""
    cache = CacheManager(max_entries=100_000)
    load, site = function_of(cache, ttl=1.0)
    other, _ = function_of(cache, ttl=600)
    local = cache._engine.local
    for x in range(MANY):
        load(x)
        load(x)
    other(1)
    with local.lock:
        for x in range(MANY, MANY + staying):
            local.insert_locked(site.store, x, x, ttl=600, native=True)
    assert wait_until(lambda: len(local) == staying + 1)
    stats = cache.stats()
    assert (stats.expirations, stats.hits, stats.misses) == (MANY, MANY, MANY + 1)
    assert set(site.store.hot) == set(range(MANY, MANY + staying))
    assert other(1) == 1
    assert other.stats.hits == 1
    assert wait_until(lambda: len(local._queue._small) <= 2 * (staying + 1) + 64)
    assert load(MANY - 1) == MANY - 1
    assert cache.stats().misses_by["expired"] == 1


@pytest.mark.parametrize("number", [1, 500, 1024, 1025, 3000, 5000])
def test_the_first_ones_on_an_ordered_shelf_are_due(number):
    """Where all live equally long, the entries that are due are the first ones; nothing is written down."""
    cache = CacheManager(max_entries=100_000)
    load, site = function_of(cache, ttl=3600)
    for x in range(5000):
        load(x)
    local, store = cache._engine.local, site.store
    with local.lock:
        ahead = list(store.hot.values())
        for first in ahead[:number]:
            first.due = -1.0
        due = store.due_locked(Moment(0.0))
        assert due.items == ahead[:number]
        assert store.ordered
        assert len(local._calendar) == 0


def test_a_ttl_of_its_own_ends_the_order():
    """Values that their loader gave another ttl leave at their own time, and the others at theirs."""
    cache = CacheManager(max_entries=100_000)

    @cache.cached("{x}", ttl=1.0)
    def load(x: int):
        if x % 3 == 1:
            entry().ttl = 600
        return x

    site = next(iter(cache._sites))
    for x in range(3000):
        load(x)
    assert wait_until(lambda: len(site.store.hot) == 1000)
    assert all(x % 3 == 1 for x in site.store.hot)
    with cache._engine.local.lock:
        assert not site.store.ordered
    assert cache.stats().expirations == 2000


def test_entries_with_a_further_age_stay_out_of_sight_and_alive():
    """At the end of their ttl stale values leave the wrapper's sight together, and stand in for errors."""
    cache = CacheManager(max_entries=100_000)
    load, site = function_of(cache, ttl=0.5, stale_while_revalidate=30)
    for x in range(2000):
        load(x)
    assert wait_until(lambda: not site.store.hot)
    assert len(site.store.cold) == 2000
    assert load(7) == 7
    assert load.stats.stale_hits == 1


def test_invalidations_and_loads_while_many_leave():
    """Threads that load and invalidate the very keys that are leaving find everything consistent."""
    cache = CacheManager(max_entries=100_000)
    load, site = function_of(cache, ttl=0.5)
    for x in range(MANY):
        load(x)
    wrong = []

    def work(offset):
        end = time.monotonic() + 1.2
        x = offset
        while time.monotonic() < end:
            x = (x + 7919) % MANY
            if load(x) != x:
                wrong.append(x)
            if not x % 3:
                load.invalidate(x)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    local = cache._engine.local
    assert wait_until(lambda: len(local) == 0)
    with local.lock:
        assert not site.store.entries()
        assert not site.store.flights
        assert local.living_locked() == []
