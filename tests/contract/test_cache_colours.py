"""One suite for both colours: the manager for tasks and its twin for threads do the same."""

import asyncio
import inspect
import threading

import pytest

from isp_perf.cache import CacheManager, SyncCacheManager


class Blocking:
    """The asynchronous manager, seen through asyncio.run."""

    def __init__(self, manager):
        self._manager = manager

    def __getattr__(self, name):
        method = getattr(self._manager, name)

        def call(*args, **kwargs):
            result = method(*args, **kwargs)
            return asyncio.run(result) if inspect.iscoroutine(result) else result

        return call


@pytest.fixture(params=["tasks", "threads"])
def cache(request):
    manager = CacheManager()
    return Blocking(manager) if request.param == "tasks" else manager.sync


def test_by_key(cache):
    """Set, get, delete, and None as a value."""
    cache.set("k", None, ttl=60)
    assert cache.get("k", "default") is None
    cache.set_many({"a": 1, "b": 2})
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
    assert cache.delete("a").delivered
    assert cache.get("a", 0) == 0
    assert cache.stats().hits == 3


def test_get_or_set(cache):
    """A value is loaded once; errors pass and are not stored."""
    loads = []
    for _ in range(2):
        assert cache.get_or_set("k", lambda: loads.append(1) or "value", ttl=5) == "value"
    assert loads == [1]
    with pytest.raises(ZeroDivisionError):
        cache.get_or_set("broken", lambda: 1 / 0)


def test_invalidation(cache):
    """Keys, tags, patterns and everything."""
    cache.set_many({"user:1": 1, "user:2": 2, "bill:1": 3})
    cache.set("tagged", 4, tags=["t"])
    assert cache.invalidate("user:1").delivered
    assert cache.invalidate_pattern("user:*").delivered
    assert cache.invalidate_tags("t").delivered
    assert cache.get_many(["user:1", "user:2", "bill:1", "tagged"]) == {"bill:1": 3}
    assert cache.clear().delivered
    assert cache.stats().l1_size == 0


def test_contexts(cache):
    """A bypass reads nothing; a scope reads once and sees its own writes."""
    cache.set("k", 1)
    with cache.bypass():
        assert cache.get("k", "nothing") == "nothing"
        assert cache.get_or_set("k", lambda: 2) == 2
    values = iter(range(10))
    with cache.request_scope():
        assert cache.get_or_set("n", lambda: next(values), ttl=0) == 0
        assert cache.get_or_set("n", lambda: next(values), ttl=0) == 0
        cache.invalidate("n")
        assert cache.get_or_set("n", lambda: next(values), ttl=0) == 1
    assert cache.get("k") == 1


def test_insight(cache):
    """One key explained, the hottest keys, the health."""
    cache.set("k", 1, ttl=60, tags=["t"])
    cache.get("k")
    known = cache.explain("k")
    assert (known.level, known.served, known.tags, known.hits) == ("l1", True, ("t",), 1)
    assert [key.key for key in cache.hot_keys(5, keys=True)] == ["k"]
    assert cache.health().status == "healthy"
    assert cache.explain("other").level == "none"


def test_warm_up(cache, tmp_path):
    """Named values are loaded; the hottest calls are written to a file and read from it."""
    assert cache.warm_cache({"k": {"fetch_func": lambda: 1}}, concurrency=1).loaded == ("k",)
    assert cache.get("k") == 1
    assert cache.snapshot(tmp_path / "hot") == 0
    assert cache.warm_from(tmp_path / "hot", concurrency=1).loaded == ()


def test_twins_have_the_same_operations():
    """Every operation of the blocking twin has the parameters of the asynchronous one."""
    for name in [name for name in vars(SyncCacheManager) if not name.startswith("_")]:
        ours = inspect.signature(getattr(SyncCacheManager, name)).parameters
        theirs = inspect.signature(getattr(CacheManager, name)).parameters
        assert list(ours) == list(theirs), name


def test_a_thread_and_a_task_share_one_load():
    """A task that asks for a key which a thread is loading waits for that load."""
    manager, go, loads = CacheManager(), threading.Event(), []

    def load():
        loads.append(1)
        go.wait()
        return "value"

    results = []
    thread = threading.Thread(target=lambda: results.append(manager.sync.get_or_set("k", load)))
    thread.start()
    while not loads:
        pass

    async def ask():
        task = asyncio.create_task(manager.get_or_set("k", load))
        await asyncio.sleep(0.01)
        go.set()
        return await task

    assert asyncio.run(ask()) == "value"
    thread.join()
    assert results == ["value"]
    assert loads == [1]
