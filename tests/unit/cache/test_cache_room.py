"""Room by weight, and room borrowed from a cachetools cache."""

import cachetools
import pytest

from isp_perf._core.weights import ENTRY_BYTES
from isp_perf.cache import CacheManager
from isp_perf.testing import ManualClock


def sized(cache, size=1000):
    @cache.cached("n:{n}", ttl=60)
    def load(n: int):
        return b"x" * size

    return load


def configured(cache, **options):
    local = cache._engine.local
    with local.lock:
        local.configure_locked(10_000, local.clock, **options)
    return local


def test_the_weights_stay_below_the_limit():
    """Entries leave until the sum of weights fits, and what leaves or is invalidated gives its weight back."""
    cache = CacheManager()
    local = configured(cache, max_bytes=100_000)
    load = sized(cache)
    for n in range(500):
        load(n)
        assert local.weight <= 100_000
    assert 60 < len(local) < 100
    assert cache.stats().evictions == 500 - len(local)
    for n in range(500):
        load.invalidate(n)
    assert (len(local), local.weight) == (0, 0)


def test_a_value_heavier_than_an_eighth_is_not_kept():
    """It is returned to the caller, and others need not leave for it."""
    cache = CacheManager()
    local = configured(cache, max_bytes=100_000)
    load, huge = sized(cache), CacheManager.cached(cache, "h:{n}")(lambda n: b"x" * 20_000)
    for n in range(10):
        load(n)
    assert len(huge(1)) == 20_000
    assert len(local) == 10
    assert huge.stats.l1_size == 0


def test_popular_entries_outlive_a_scan_by_weight():
    """The policy is S3-FIFO by weight too: what is asked for again survives what is asked for once."""
    cache = CacheManager()
    configured(cache, max_bytes=100_000)
    load = sized(cache)
    for _ in range(4):
        for n in range(20):
            load(n)
    for n in range(1000, 1400):
        load(n)
    before = load.stats.misses
    for n in range(20):
        load(n)
    assert load.stats.misses - before <= 2


def test_a_value_weighs_what_its_encoding_does():
    """The length of an encoded value, where it is known, stands for it; a constant per entry comes on top."""
    cache = CacheManager()
    local = configured(cache, max_bytes=1_000_000)
    load = sized(cache, 10)
    store = next(iter(cache._sites)).store
    with local.lock:
        local.insert_locked(store, 1, load, ttl=60, native=True, weight=1000)
    assert local.weight == ENTRY_BYTES + 1000
    with local.lock:
        local.insert_locked(store, 2, b"x" * 5000, ttl=60, native=True)
    assert 5000 < local.weight - 1000 < 6000


def test_weight_without_a_limit_is_not_counted():
    """Without ``max_bytes`` there is no weight to tell."""
    assert CacheManager()._engine.local.weight is None


@pytest.mark.parametrize("make", [cachetools.LRUCache, cachetools.LFUCache, cachetools.FIFOCache, cachetools.RRCache])
def test_a_borrowed_cache_holds_the_entries(make):
    """Any cachetools cache decides who leaves, and holds the values under their logical keys."""
    cache, room = CacheManager(), make(maxsize=10)
    configured(cache, l1=room)
    load = sized(cache, 3)
    for n in range(100):
        load(n)
    assert load(99) == b"xxx"
    assert len(room) == 10
    assert set(room.values()) == {b"xxx"}
    assert all(key.startswith("n:") for key in room)
    assert cache.stats().l1_size == 10


def test_a_borrowed_cache_keeps_its_order():
    """A hit is a read of the borrowed cache, so that the least recently used entry leaves."""
    cache, room = CacheManager(), cachetools.LRUCache(maxsize=2)
    configured(cache, l1=room)
    load = sized(cache)
    load(1)
    load(2)
    load(1)
    load(3)
    assert set(room) == {"n:1", "n:3"}
    assert (load.stats.hits, load.stats.misses) == (1, 3)
    load(2)
    assert load.stats.misses == 4
    load.invalidate(3)
    assert "n:3" not in room


def test_a_borrowed_cache_keeps_its_sizes_and_its_own_expiry():
    """Sizes and the ttl of the borrowed cache hold beside ours; what it finds too large is not kept."""
    clock = ManualClock()
    cache = CacheManager(clock=clock)
    room = cachetools.TTLCache(maxsize=5000, ttl=5, timer=clock, getsizeof=len)
    configured(cache, l1=room)
    load, huge = sized(cache), CacheManager.cached(cache, "h:{n}")(lambda n: b"x" * 6000)
    for n in range(10):
        load(n)
    huge(1)
    assert room.currsize == 5000
    assert huge.stats.l1_size == 0
    clock.advance(6)
    load(9)
    assert load.stats.misses == 11


def test_what_a_borrowed_cache_dropped_is_forgotten():
    """Books of entries that left unseen do not grow without bound."""
    cache, room = CacheManager(), cachetools.LRUCache(maxsize=20)
    local = configured(cache, l1=room)
    load = sized(cache)
    for n in range(5000):
        load(n)
    assert len(next(iter(cache._sites)).store.entries()) <= 20 + 5 + 64 + 1
    assert len(local.living_locked()) == 20
