"""A suspended local level: entries wait aside, and what left meanwhile stays away."""

import pytest

from isp_perf.cache import CacheManager
from isp_perf.cache._local import LocalLevel
from isp_perf.testing import ManualClock


@pytest.fixture
def cache():
    return CacheManager()


class Loaded:
    """A cached function that counts its loads."""

    def __init__(self, cache, **policy):
        self.loads = 0

        @cache.cached("x:{x}", **policy)
        def load(x: int):
            self.loads += 1
            return self.loads

        self.load = load
        self.store = next(iter(cache._sites)).store


def local_of(cache) -> LocalLevel:
    return cache._engine.local


def test_hot_is_empty_in_place_and_comes_back(cache):
    """While a cause stands no wrapper finds anything; with ``serve`` the slow path still answers."""
    loaded, local = Loaded(cache), local_of(cache)
    hot = loaded.store.hot
    loaded.load(1)
    with local.lock:
        local.suspend_locked("one", serve=True)
    assert hot == {}
    assert loaded.load(1) == 1
    with local.lock:
        local.resume_locked("one")
    assert loaded.store.hot is hot
    assert list(hot) == [1]
    assert loaded.load.stats.hits == 1
    assert loaded.load(1) == 1
    assert loaded.loads == 1


def test_nothing_is_served_while_distrusted(cache):
    """Without ``serve`` every call loads, a look finds nothing, and the reason is counted."""
    loaded, local = Loaded(cache), local_of(cache)
    loaded.load(1)
    with local.lock:
        local.suspend_locked("channel", serve=False)
    assert local.distrusted
    assert loaded.load.peek(1) is None
    assert cache.sync.get("x:1") is None
    assert loaded.load(1) == 2
    assert local.counters.missed == {"distrusted": 1}
    with local.lock:
        local.resume_locked("channel")
    assert loaded.load(1) == 2
    assert not local.distrusted


def test_every_cause_has_to_go(cache):
    """Causes stand side by side: the last to go brings the entries back, and the strictest rules."""
    loaded, local = Loaded(cache), local_of(cache)
    loaded.load(1)
    with local.lock:
        local.suspend_locked("channel", serve=False)
        local.suspend_locked("bypass", serve=True)
        local.resume_locked("channel")
        assert not local.distrusted
        assert not loaded.store.hot
        local.resume_locked("bypass")
        local.resume_locked("never began")
    assert list(loaded.store.hot) == [1]


def test_what_is_removed_meanwhile_stays_away(cache):
    """Invalidated entries do not come back, and what is stored meanwhile waits as well."""
    loaded, local = Loaded(cache), local_of(cache)
    loaded.load(1)
    loaded.load(2)
    with local.lock:
        local.suspend_locked("bypass", serve=True)
    loaded.load.invalidate(1)
    loaded.load(3)
    later = CacheManager.cached(cache, "y:{y}")(lambda y: y)
    assert later(5) == 5
    assert all(not store.hot for site in cache._sites for store in site.stores())
    with local.lock:
        local.resume_locked("bypass")
    assert set(loaded.store.hot) == {2, 3}
    assert loaded.load(1) == 4
    assert local.counters.missed == {"invalidated": 1}


def test_no_stale_value_stands_in_while_distrusted():
    """``stale_if_error`` serves nothing that an unheard invalidation may have concerned."""
    clock = ManualClock()
    cache = CacheManager(clock=clock)
    working = [True]

    @cache.cached("x:{x}", ttl=10, stale_if_error=100)
    def load(x: int):
        if not working[0]:
            raise ConnectionError
        return x

    load(1)
    clock.advance(20)
    working[0] = False
    assert load(1) == 1
    clock.advance(5)
    with local_of(cache).lock:
        local_of(cache).suspend_locked("channel", serve=False)
    with pytest.raises(ConnectionError):
        load(1)


def test_a_lost_channel_drops_everything(cache):
    """After ``drop_all_locked`` nothing is left, and the drops count as invalidations."""
    loaded, local = Loaded(cache), local_of(cache)
    for x in range(10):
        loaded.load(x)
    with local.lock:
        local.drop_all_locked()
    assert len(local) == 0
    assert cache.stats().invalidations == 10
    assert loaded.load(1) == 11


def test_misses_are_counted_by_reason():
    """Evicted, expired, invalidated and absent entries are told apart; the manager and the function agree."""
    clock = ManualClock()
    cache = CacheManager(max_entries=2, clock=clock)
    loaded = Loaded(cache, ttl=10)
    loaded.load(1)
    clock.advance(11)
    loaded.load(1)
    loaded.load.invalidate(1)
    loaded.load(1)
    loaded.load(2)
    loaded.load(3)
    loaded.load(1)
    assert local_of(cache).counters.missed == {"expired": 1, "invalidated": 1, "evicted": 1}
    assert next(iter(cache._sites)).counters.missed == {"expired": 1, "invalidated": 1, "evicted": 1}
    assert cache.stats().misses == 6


def test_an_entry_is_described_without_its_value():
    """Age, time left, tags, hits and load time are told where somebody wrote them down."""
    clock = ManualClock()
    cache = CacheManager(clock=clock)
    loaded, local = Loaded(cache, ttl=10), local_of(cache)

    @cache.cached("y:{y}", ttl=10, tags=("t",), stale_while_revalidate=5)
    def slow(y: int):
        clock.advance(0.5)
        return y

    loaded.load(1)
    slow(1)
    loaded.load(1)
    clock.advance(4)
    with local.lock:
        plain = local.describe_locked(local.index_locked()["x:1"])
        staged = local.describe_locked(local.index_locked()["y:1"])
    assert (plain.key, plain.age, plain.left, plain.tags, plain.hits) == ("x:1", 4.5, 5.5, (), 1)
    assert (staged.age, staged.left, staged.stale_left, staged.tags) == (4, 6, 11, ("t",))
    assert (plain.load_seconds, staged.load_seconds) == (None, 0.5)
    assert plain.served
    assert staged.served


def test_what_is_stored_by_key_is_found_by_the_function_whose_key_it_is(cache):
    """Other functions go on answering misses the short way; the one whose keys begin like it looks there first."""
    mine, other = Loaded(cache), CacheManager.cached(cache, "other:{y}")(lambda y: y)
    mine.load(1)
    other(1)
    cache.sync.set("x:2", "by key")
    sites = {site.template: site for site in cache._sites}
    assert [sites[name].store.detour for name in ("x:{x}", "other:{y}")] == [True, False]
    assert mine.load(2) == "by key"
    assert mine.load(3) == 2
    late = CacheManager.cached(cache, "late:{z}")(lambda z: z)
    cache.sync.set("late:7", "by key")
    assert late(7) == "by key"
    cache.configure(max_entries=100)
    assert mine.load(1) == 3
    assert sites["x:{x}"].store.detour is False
