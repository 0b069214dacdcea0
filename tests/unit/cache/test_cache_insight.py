"""What a manager tells about itself: statistics, hot keys, one key explained, health, events, the hottest calls."""

import asyncio
import json
import logging
import threading
from uuid import UUID

import pytest

from isp_perf.cache import CacheManager, entry
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def cache(clock):
    return CacheManager("figures", clock=clock)


class TestStatistics:
    """Figures beyond hits and misses."""

    def test_misses_by_reason(self, cache, clock):
        """Each miss has one reason, and together they are all misses."""

        @cache.cached("x:{x}", ttl=10)
        def load(x: int):
            return x

        load(1)
        clock.advance(10)
        load(1)
        load.invalidate(1)
        load(1)
        with cache.bypass():
            load(1)
        for stats in (cache.stats(), load.stats):
            assert stats.misses_by == {"absent": 1, "expired": 1, "invalidated": 1, "bypassed": 1}
            assert stats.misses == 4

    def test_evicted_is_a_reason_too(self):
        """A key that was pushed out lately is a miss because of that."""
        small = CacheManager(max_entries=4)

        @small.cached("x:{x}")
        def load(x: int):
            return x

        for x in [*range(8), 3]:
            load(x)
        assert small.stats().misses_by["evicted"] == 1

    def test_seconds_saved_is_hits_times_the_mean_load(self, cache, clock):
        """By function: a cheap one that is hit often saves little."""

        @cache.cached("slow:{x}")
        def slow(x: int):
            clock.advance(2)
            return x

        @cache.cached("quick:{x}")
        def quick(x: int):
            clock.advance(0.001)
            return x

        for _ in range(4):
            slow(1)
        for _ in range(11):
            quick(1)
        slow.invalidate(1)
        assert cache.stats().seconds_saved == pytest.approx(3 * 2 + 10 * 0.001)
        assert slow.stats.seconds_saved == pytest.approx(6)

    def test_hit_ratio_with_another_room(self):
        """Half the room would lose the hits of the colder half; twice the room would keep what was just evicted."""
        cache = CacheManager(max_entries=10)

        @cache.cached("x:{x}")
        def load(x: int):
            return x

        assert cache.stats().half_size_hit_ratio is None
        for x in range(8):
            for _ in range(1 + 10 * (x < 5)):
                load(x)
        stats = cache.stats()
        assert stats.half_size_hit_ratio == pytest.approx(stats.hit_ratio)
        for x in range(5, 8):
            for _ in range(10):
                load(x)
        stats = cache.stats()
        assert stats.half_size_hit_ratio == pytest.approx(stats.hit_ratio * 50 / 80)
        assert stats.double_size_hit_ratio == pytest.approx(stats.hit_ratio)
        for x in [*range(20, 40), *range(30, 40)]:
            load(x)
        stats = cache.stats()
        assert stats.double_size_hit_ratio > stats.hit_ratio

    def test_the_json_form_has_them(self, cache):
        """as_dict can be written as JSON and has every figure."""
        cache.sync.get_or_set("k", lambda: 1)
        figures = json.loads(json.dumps(cache.stats().as_dict()))
        assert figures["misses_by"] == {"absent": 1}
        assert {"seconds_saved", "l1_weight_bytes", "half_size_hit_ratio", "double_size_hit_ratio"} <= figures.keys()

    def test_weight(self):
        """With max_bytes the weight of the entries is told."""
        cache = CacheManager(max_bytes=1_000_000)
        cache.sync.set("k", "x" * 10_000)
        assert 10_000 <= cache.stats().l1_weight_bytes < 20_000
        assert cache.health().l1_weight_bytes == cache.stats().l1_weight_bytes


def test_hot_keys(cache, clock):
    """The most read entries, hottest first; keys only on request, and never in repr."""

    @cache.cached("person:{name}")
    def person(name: str):
        clock.advance(1)
        return name

    for name, times in (("ana", 3), ("bob", 6), ("eva", 2)):
        for _ in range(times):
            person(name)
    cache.sync.set("own", 1)
    for _ in range(9):
        cache.sync.get("own")
    hottest = cache.hot_keys(2)
    assert [(key.template, key.hits, key.key) for key in hottest] == [("(by key)", 9, None), ("person:{name}", 5, None)]
    assert hottest[1].seconds_saved == pytest.approx(5)
    named = cache.sync.hot_keys(2, keys=True)
    assert [key.key for key in named] == ["own", "person:bob"]
    assert "bob" not in repr(named)
    with pytest.raises(ConfigurationError, match="number=0"):
        cache.hot_keys(0)


class TestExplanation:
    """What is known of one key."""

    def test_of_a_living_entry(self, cache, clock):
        """Level, age, time left, tags, hits, and why it was a miss the last time; neither value nor key in repr."""

        @cache.cached("person:{name}", ttl=60, stale_if_error=30, tags=["people"])
        def person(name: str):
            clock.advance(2)
            return f"secret of {name}"

        assert person.explain("ana").level == "none"
        assert person.explain("ana").last_miss == "absent"
        person("ana")
        person.invalidate("ana")
        person("ana")
        person("ana")
        clock.advance(10)
        known = person.explain("ana")
        assert known == cache.explain("person:ana") == cache.sync.explain("person:ana")
        assert (known.key, known.level, known.served, known.tags) == ("person:ana", "l1", True, ("people",))
        assert (known.age, known.ttl_left, known.stale_left, known.hits, known.load_seconds) == (10, 50, 80, 1, 2)
        assert known.last_miss == "invalidated"
        assert "person:ana" not in repr(known)
        assert "secret" not in str(known.as_dict())

    def test_of_a_stale_and_an_expired_entry(self, cache, clock):
        """A stale value has less than nothing left; an expired one is gone, and the reason is told."""

        @cache.cached("x:{x}", ttl=10, stale_if_error=10)
        def load(x: int):
            return x

        load(1)
        clock.advance(15)
        assert load.explain(1).ttl_left == -5
        clock.advance(15)
        cache.sync.get(load.key(1))
        assert (load.explain(1).level, load.explain(1).last_miss) == ("none", "expired")

    async def test_while_loading(self, cache):
        """A key that somebody loads is 'loading'."""
        seen = []

        @cache.cached("x:{x}")
        async def load(x: int):
            seen.append(load.explain(x).level)
            entry().tags.add("t")

        await load(1)
        assert seen == ["loading"]
        assert load.explain(1).level == "l1"

    def test_of_a_key_of_ones_own(self, cache, clock):
        """Keys of set and get are explained as well; looking is no read."""
        cache.sync.set("k", 1, ttl=5)
        clock.advance(1)
        assert (cache.explain("k").age, cache.explain("k").ttl_left) == (None, pytest.approx(4))
        assert cache.explain("unknown").as_dict()["level"] == "none"
        assert cache.stats().hits == 0


class TestHealth:
    """Whether the cache can do its work."""

    async def test_local_only(self, cache):
        """Without a remote level it is healthy."""
        await cache.set("k", 1)
        assert cache.health().as_dict() == {
            "status": "healthy",
            "l1_size": 1,
            "l1_weight_bytes": None,
            "remote": "none",
            "remote_errors": 0,
            "undelivered": False,
            "l2": "none",
            "l1_trusted": True,
            "journal": 0,
            "last_error_kind": None,
            "authenticated": False,
            "channel": "none",
        }

    async def test_with_a_remote_level(self, cache, remote):
        """A sick remote level is 'down' and what it was not told is 'undelivered'; then it is healthy again."""
        cache.configure(redis=remote)
        await cache.set("k", 1)
        assert (cache.health().status, cache.health().remote) == ("healthy", "up")
        remote.sick = True
        await cache.invalidate("k")
        health = cache.sync.health()
        assert (health.status, health.remote, health.undelivered) == ("degraded", "down", True)
        assert health.remote_errors == 1
        remote.sick = False
        await asyncio.sleep(0.3)
        assert cache.health().status == "healthy"
        assert cache.health().l2 == "up"


class Ear:
    """Keeps what it hears."""

    def __init__(self, cache=None):
        self.heard = []
        self.cache = cache

    def event(self, name, attributes):
        if self.cache is not None:
            done = threading.Event()
            threading.Thread(target=lambda: (self.cache.sync.get("other"), done.set()), daemon=True).start()
            assert done.wait(5), "the observer is called under the lock"
        self.heard.append((name, dict(attributes)))


class TestObserver:
    """What an observer hears."""

    def test_loads_and_what_leaves(self, clock):
        """Loads with their time and failures, evictions, expirations and invalidations; no key and no value."""
        ear = Ear()
        cache = CacheManager("heard", clock=clock, observer=ear, max_entries=2)

        @cache.cached("person:{name}", ttl=10)
        def person(name: str):
            clock.advance(1)
            if name == "nobody":
                raise LookupError
            return name

        person("ana")
        person("ana")
        assert ear.heard == [
            ("cache.load", {"cache": "heard", "function": person.__qualname__, "count": 1, "failed": 0, "seconds": 1})
        ]
        ear.heard.clear()
        with pytest.raises(LookupError):
            person("nobody")
        assert ear.heard[0][1]["failed"] == 1
        person.invalidate("ana")
        assert ear.heard[-1] == ("cache.invalidation", {"cache": "heard", "count": 1})
        for name in ("bob", "eva", "ivo"):
            person(name)
        clock.advance(10)
        person("ivo")
        names = [name for name, _ in ear.heard]
        assert names.count("cache.load") == 5
        assert {"cache.eviction", "cache.expiration", "cache.invalidation"} <= set(names)
        assert not {"ana", "bob", "eva", "ivo"} & {str(value) for _, told in ear.heard for value in told.values()}

    def test_it_is_called_outside_the_lock(self):
        """Another thread can use the cache while the observer runs."""
        cache = CacheManager()
        ear = Ear(cache)
        cache.configure(observer=ear)
        cache.sync.get_or_set("k", lambda: 1)
        assert len(ear.heard) == 1

    def test_an_observer_that_raises_is_logged_once(self, caplog):
        """Callers never notice, and the log is not flooded."""

        class Broken:
            def event(self, name, attributes):
                raise RuntimeError("no")

        cache = CacheManager(observer=Broken())
        with caplog.at_level(logging.ERROR, "isp_perf.cache"):
            for key in "abc":
                assert cache.sync.get_or_set(key, lambda key=key: key) == key
        assert len(caplog.records) == 1

    def test_it_can_be_taken_away(self):
        """configure(observer=None) ends the telling; what was counted before is not told to the next one."""
        first, second = Ear(), Ear()
        cache = CacheManager(observer=first)
        cache.sync.get_or_set("a", lambda: 1)
        cache.configure(observer=None)
        cache.sync.get_or_set("b", lambda: 1)
        cache.configure(observer=second)
        cache.sync.get_or_set("c", lambda: 1)
        assert [len(first.heard), len(second.heard)] == [1, 1]

    async def test_for_tasks_and_bypassed_calls(self):
        """Coroutine functions are heard, and so is a load inside a bypass."""
        ear = Ear()
        cache = CacheManager(observer=ear)

        @cache.cached("x:{x}")
        async def load(x: int):
            return x

        await asyncio.gather(load(1), load(1), load(2))
        with cache.bypass():
            await load(1)
        assert sum(told["count"] for name, told in ear.heard if name == "cache.load") == 3


class TestSnapshot:
    """The hottest calls survive the process, without their values."""

    def functions(self, cache):
        """Two cached functions, and what they were called with."""
        loads = []

        @cache.cached("user:{user_id}:{plan}")
        async def user(user_id: int, plan: str = "basic"):
            loads.append((user_id, plan))
            return {"secret": user_id}

        @cache.cached("rate:{hash}")
        def rate(code: UUID, exact: bool = False):
            loads.append((code, exact))
            return 1.5

        return user, rate, loads

    async def test_hottest_calls_are_made_again(self, tmp_path):
        """The next process loads the hottest calls, of coroutine functions and plain ones, with arguments as typed."""
        cache = CacheManager()
        user, rate, _ = self.functions(cache)
        for number in range(10):
            for _ in range(number + 1):
                await user(number, plan="fibra")
        code = UUID(int=5)
        for _ in range(20):
            rate(code, True)
        path = tmp_path / "hot.json"
        assert await cache.snapshot(path, top=4) == 4
        assert path.stat().st_mode & 0o777 == 0o600
        assert "secret" not in path.read_text()

        fresh = CacheManager()
        *kept, loads = self.functions(fresh)
        steps = []
        report = await fresh.warm_from(path, concurrency=2, progress=lambda done, total: steps.append((done, total)))
        assert sorted(loads, key=str) == sorted([(9, "fibra"), (8, "fibra"), (7, "fibra"), (code, True)], key=str)
        assert sorted(report.loaded) == ["rate:{hash}", *["user:{user_id}:{plan}"] * 3]
        assert report.failed == {}
        assert steps[-1] == (4, 4)
        assert len(kept) == 2

    def test_threads_do_the_same_for_plain_functions(self, tmp_path):
        """sync.snapshot and sync.warm_from leave coroutine functions out of the warm-up."""
        cache = CacheManager()
        user, rate, _ = self.functions(cache)
        asyncio.run(user(1))
        rate(UUID(int=1))
        path = tmp_path / "hot.json"
        assert cache.sync.snapshot(path) == 2
        fresh = CacheManager()
        *kept, loads = self.functions(fresh)
        assert fresh.sync.warm_from(str(path)).loaded == ("rate:{hash}",)
        assert loads == [(UUID(int=1), False)]
        assert len(kept) == 2
        with pytest.raises(ConfigurationError, match="concurrency=2"):
            fresh.sync.warm_from(path, concurrency=2)

    async def test_what_cannot_be_called_again_is_left_out(self, tmp_path):
        """Arguments of other types, methods, keys of one's own, and functions that are gone or changed."""
        cache = CacheManager()
        user, rate, _ = self.functions(cache)

        @cache.cached("many:{hash}")
        def many(ids: list):
            return ids

        class Shop:
            @cache.cached("shop:{hash}")
            def stock(self, x: int):
                return x

        many([1, 2])
        shop = Shop()
        shop.stock(1)
        await cache.set("own", 1)
        await user(1)
        rate(UUID(int=1))
        path = tmp_path / "hot.json"
        assert await cache.snapshot(path) == 2
        fresh = CacheManager()

        @fresh.cached("user:{customer}:{plan}")
        def other(customer: int, plan: str):
            return customer

        content = json.loads(path.read_text().replace("user:{user_id}:{plan}", "user:{customer}:{plan}"))
        path.write_text(json.dumps(content))
        report = await fresh.warm_from(path)
        assert (report.loaded, dict(report.failed)) == ((), {})

    async def test_failures_are_reported(self, tmp_path):
        """A loader that fails is named by its template; the others are loaded."""
        cache = CacheManager()
        user, rate, _ = self.functions(cache)
        await user(1)
        rate(UUID(int=1))
        await cache.snapshot(tmp_path / "hot.json")
        fresh = CacheManager()

        @fresh.cached("user:{user_id}:{plan}")
        async def broken(user_id: int, plan: str):
            raise ConnectionError

        @fresh.cached("rate:{hash}")
        def broken_too(code: UUID, exact: bool = False):
            raise LookupError

        report = await fresh.warm_from(tmp_path / "hot.json")
        assert {name: type(error) for name, error in report.failed.items()} == {
            "user:{user_id}:{plan}": ConnectionError,
            "rate:{hash}": LookupError,
        }

    @pytest.mark.parametrize("text", ["", "[]", '{"format": 9, "calls": []}', '{"format": 1, "calls": [1]}', "{}"])
    async def test_a_foreign_file_is_refused(self, cache, tmp_path, text):
        """Anything that snapshot did not write is a ConfigurationError, and a missing file the system's own error."""
        path = tmp_path / "foreign"
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="a file that snapshot"):
            await cache.warm_from(path)
        with pytest.raises(FileNotFoundError):
            await cache.warm_from(tmp_path / "missing")
