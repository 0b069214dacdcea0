"""The manager: by-key operations, configuration, statistics, warm-up, expiry."""

import asyncio
import os
import time

import pytest

import isp_perf
from isp_perf.cache import CacheManager, CachePolicy
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock


@pytest.fixture
def cache():
    return CacheManager()


async def test_values_by_key(cache):
    """get, set, get_many, set_many and delete work on keys of the user's own; None is a value."""
    assert await cache.get("k") is None
    assert await cache.get("k", "default") == "default"
    await cache.set("k", None)
    assert await cache.get("k", "default") is None
    await cache.set_many({"a": 1, "b": 2}, ttl=60)
    assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
    assert (await cache.delete("a", "nothing")).delivered
    assert await cache.get_many(["a", "b"]) == {"b": 2}


async def test_get_or_set_loads_once(cache):
    """get_or_set takes plain and coroutine functions and merges concurrent calls."""
    loads = []

    async def load():
        loads.append(1)
        await asyncio.sleep(0.01)
        return "value"

    assert await asyncio.gather(*(cache.get_or_set("k", load, ttl=60) for _ in range(5))) == ["value"] * 5
    assert await cache.get_or_set("k2", lambda: "plain") == "plain"
    assert await cache.get("k2") == "plain"
    assert len(loads) == 1
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_set("k3", lambda: 1 / 0)


async def test_keys_of_functions_are_keys_of_the_manager(cache):
    """What a function cached is found, replaced and invalidated under .key(), and the other way round."""
    loads = []

    @cache.cached("user:{x}")
    async def user(x: int):
        loads.append(x)
        return {"id": x}

    assert await user(1) == {"id": 1}
    assert await cache.get(user.key(1)) == {"id": 1}
    await cache.set("user:1", "replaced")
    assert await user(1) == "replaced"
    await cache.set("user:2", "set first")
    assert await user(2) == "set first"
    assert await user(2) == "set first"
    await cache.invalidate("user:1", "user:2")
    assert await user(1) == {"id": 1}
    await cache.invalidate_pattern("user:*")
    assert await user(1) == {"id": 1}
    assert loads == [1, 1, 1]
    assert (await cache.clear()).delivered
    assert cache.stats().l1_size == 0


async def test_statistics_are_exact_and_keep_the_shape(cache):
    """hits, misses, hit_rate and l1_size follow every call, also after entries have gone."""

    @cache.cached("x:{x}", ttl=60)
    async def load(x: int):
        return x

    assert cache.stats().as_dict()["hit_rate"] == 0.0
    for x in (1, 1, 1, 2, 2, 3, 3, 3):
        await load(x)
    await load.invalidate(1)
    report = cache.stats().as_dict()
    assert list(report)[:4] == ["hits", "misses", "hit_rate", "l1_size"]
    assert (report["hits"], report["misses"], report["hit_rate"], report["l1_size"]) == (5, 3, 62.5, 2)
    assert load.stats.hits == 5
    assert cache.stats().hit_ratio == pytest.approx(0.625)
    assert cache.stats().loads == 3


async def test_room_is_limited():
    """There are never more entries than max_entries, and evictions are counted."""
    cache = CacheManager(max_entries=10)

    @cache.cached("x:{x}")
    async def load(x: int):
        return x

    for x in range(100):
        await load(x)
    stats = cache.stats()
    assert stats.l1_size == 10
    assert stats.evictions == 90


async def test_warm_cache(cache):
    """Each value is stored under its name; failures are reported by name; progress is told."""
    steps = []

    async def popular():
        return [1, 2]

    def broken():
        raise ValueError("no")

    report = await cache.warm_cache(
        {
            "popular_data": {"fetch_func": popular, "ttl": 3600},
            "plain": {"fetch_func": lambda: 1},
            "broken": {"fetch_func": broken},
        },
        progress=lambda done, total: steps.append((done, total)),
    )
    assert report.loaded == ("popular_data", "plain")
    assert list(report.failed) == ["broken"]
    assert report.seconds >= 0
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert await cache.get("popular_data") == [1, 2]


def test_warm_cache_in_threads(cache):
    """The blocking twin loads one after the other, reports the same, and refuses to do more at a time."""
    steps = []
    report = cache.sync.warm_cache(
        {"good": {"fetch_func": lambda: 1, "ttl": 60}, "bad": {"fetch_func": lambda: 1 / 0}},
        progress=lambda done, total: steps.append((done, total)),
    )
    assert report.loaded == ("good",)
    assert isinstance(report.failed["bad"], ZeroDivisionError)
    assert steps == [(1, 2), (2, 2)]
    assert cache.sync.get("good") == 1
    with pytest.raises(ConfigurationError, match="concurrency=8"):
        cache.sync.warm_cache({}, concurrency=8)


async def test_warm_cache_is_bounded(cache):
    """No more than `concurrency` loaders run at a time."""
    running, most = [0], [0]

    async def load():
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0.001)
        running[0] -= 1

    await cache.warm_cache({f"n{number}": {"fetch_func": load} for number in range(20)}, concurrency=3)
    assert most == [3]


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ({"a": {"ttl": 1}}, {}, r"a\.fetch_func"),
        ({"a": {"fetch_func": print, "grace": 1}}, {}, "grace"),
        ({}, {"concurrency": 0}, "concurrency=0"),
    ],
)
async def test_warm_cache_settings(cache, sources, options, message):
    """A wrong source is a ConfigurationError before anything is loaded."""
    with pytest.raises(ConfigurationError, match=message):
        await cache.warm_cache(sources, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_entries": 0}, "max_entries=0"),
        ({"max_entries": True}, "max_entries=True"),
        ({"namespace": ""}, "namespace=''"),
        ({"namespace": "a:b"}, "namespace='a:b'"),
        ({"clock": 5}, "clock=5"),
        ({"size": 5}, "no setting of CacheManager"),
    ],
)
def test_bad_settings(cache, options, message):
    """A wrong setting is a ConfigurationError, at construction as in configure, which then changes nothing."""
    with pytest.raises(ConfigurationError, match=message):
        CacheManager(**options)
    with pytest.raises(ConfigurationError, match=message):
        cache.configure(**options)


async def test_configure_between_uses(cache, remote):
    """Settings may change later: old entries are dropped, decorated functions follow, also to another clock."""
    loads = []

    @cache.cached("x:{x}", ttl=10)
    async def load(x: int):
        loads.append(x)
        return x

    await load(1)
    clock = ManualClock()
    cache.configure(redis=remote, namespace="shop", clock=clock, policy=CachePolicy(ttl=5))
    assert cache.stats().l1_size == 0
    await load(1)
    await load(1)
    assert loads == [1, 1]
    assert set(remote.data) == {"shop:1:x:1", "shop:%epoch"}
    clock.advance(10)
    remote.data.clear()
    await load(1)
    assert loads == [1, 1, 1]


async def test_async_with_and_aclose(remote):
    """A manager is a context manager; a level that was handed in stays open."""
    async with CacheManager(redis=remote) as cache:
        await cache.set("k", 1)
    assert not remote.closed
    assert "entries=0" in repr(cache)


def test_default_manager():
    """isp_perf.cached caches in the default manager."""

    @isp_perf.cached("default-manager:{x}")
    def load(x: int) -> int:
        return x

    assert load(1) == load(1) == 1
    assert isp_perf.cache_manager.sync.get("default-manager:1") == 1
    isp_perf.cache_manager.sync.invalidate("default-manager:1")


def test_entries_leave_by_themselves(cache):
    """With the real clock an entry is gone at the end of its ttl, without a clock on the hit path."""

    @cache.cached("x:{x}", ttl=0.3)
    def load(x: int):
        return time.monotonic()

    first = load(1)
    while (value := load(1)) == first:
        time.sleep(0.001)
    assert 0.25 <= value - first < 0.6
    deadline = time.monotonic() + 5
    while cache.stats().l1_size and time.monotonic() < deadline:
        time.sleep(0.005)
    assert cache.stats().l1_size == 0


def test_short_ttl_is_exact(cache):
    """Below 250 ms the clock is compared on each hit: nothing is served after its ttl."""

    @cache.cached("x:{x}", ttl=0.05)
    def load(x: int):
        return time.monotonic()

    first = load(1)
    while (value := load(1)) == first:
        assert time.monotonic() - first < 0.06
    assert 0.05 <= value - first < 0.06 or value - first >= 0.05


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_cache_survives_a_fork(cache):
    """A forked child keeps the entries, loads, and expires by a reaper of its own."""

    @cache.cached("x:{x}", ttl=0.3)
    def load(x: int):
        return os.getpid()

    parent = load(1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kept = load(1) == parent
            mine = load(2) == os.getpid()
            time.sleep(0.5)
            code = 0 if kept and mine and load(1) == os.getpid() and cache.stats().l1_size == 1 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert load(1) in {parent, os.getpid()}


async def test_without_a_remote_level_any_value_may_be_stored(cache):
    """Nothing is encoded when there is no remote level."""
    value = object()
    await cache.set("k", value)
    assert await cache.get("k") is value
