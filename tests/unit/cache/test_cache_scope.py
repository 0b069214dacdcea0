"""Contexts that use the cache in a way of their own: bypass and request scope."""

import asyncio
import contextvars
import threading

import pytest

from isp_perf.cache import CacheManager, entry
from isp_perf.testing import ManualClock


@pytest.fixture
def cache():
    return CacheManager()


def counted(cache, **policy):
    """A cached function that returns how often it was called."""
    loads = []

    @cache.cached("x:{x}", **policy)
    def load(x: int):
        loads.append(x)
        return len(loads)

    return load, loads


def test_bypass_reads_and_stores_nothing(cache):
    """Inside, each call is a load of its own, counted as a bypassed miss; afterwards the cached value is there."""
    load, loads = counted(cache)
    assert [load(1), load(1)] == [1, 1]
    with cache.bypass():
        assert [load(1), load(1), load(2)] == [2, 3, 4]
        assert load.peek(1, default="nothing") == "nothing"
        assert cache.sync.get(load.key(1), "nothing") == "nothing"
        assert cache.sync.get_or_set("k", lambda: "loaded") == "loaded"
    assert load(1) == 1
    assert cache.sync.get("k", "nothing") == "nothing"
    assert load(2) == 5
    assert loads == [1, 1, 1, 2, 2]
    assert cache.stats().misses == 2 + 3 + 1 + 1
    assert load.stats.loads == 5


def test_bypass_concerns_one_context_and_one_manager(cache):
    """Other contexts, and functions of other managers, are answered from the cache meanwhile."""
    load, _ = counted(cache)
    other, _ = counted(CacheManager())
    load(1)
    other(1)
    outside = contextvars.copy_context()
    with cache.bypass():
        assert outside.run(load, 1) == 1
        assert other(1) == 1
        assert load(1) == 2


def test_writes_are_writes_inside_a_bypass(cache):
    """put, refresh and invalidate do what they do elsewhere."""
    load, _ = counted(cache)
    with cache.bypass():
        load.put("put", 1)
        assert load.refresh(2) == 1
    assert [load(1), load(2)] == ["put", 1]
    with cache.bypass():
        load.invalidate(1)
    assert load(1) == 2


async def test_bypass_of_a_failing_and_a_cancelled_load(cache):
    """Errors and cancellation pass through, and entry() works in a loader that nothing is stored of."""
    started = asyncio.Event()

    @cache.cached("x:{x}")
    async def load(x: int):
        entry().ttl = 5
        if not x:
            raise ConnectionError
        started.set()
        await asyncio.sleep(60)

    with cache.bypass():
        with pytest.raises(ConnectionError):
            await load(0)
        task = asyncio.create_task(load(1))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert cache.stats().errors == 2
    assert cache.stats().l1_size == 0


def test_functions_decorated_inside_ask_as_well(cache):
    """A function that is decorated while a bypass is open obeys it, and so does one without a slot by value."""
    with cache.bypass():
        load, _ = counted(cache)

        @cache.cached("packed:{hash}")
        def packed(*values: int):
            return object()

        assert [load(1), load(1)] == [1, 2]
        assert packed(1) is not packed(1)
    assert load(1) == load(1) == 3
    assert packed(1) is packed(1)


def test_a_hit_does_not_ask_once_the_contexts_are_closed(cache):
    """The wrapper's code is the one from before: what is off costs nothing."""
    load, _ = counted(cache)
    before = load.__code__
    with cache.bypass(), cache.request_scope():
        assert load.__code__ is not before
    assert load.__code__ is before


def test_scope_reads_each_key_once(cache):
    """Within a request scope a key has one value, whatever expires or changes meanwhile."""
    clock = ManualClock()
    cache.configure(clock=clock)
    load, _ = counted(cache, ttl=10)
    with cache.request_scope():
        assert load(1) == 1
        clock.advance(11)
        contextvars.Context().run(load, 1)
        assert load(1) == 1
        assert load(2) == 3
    assert load(1) == 2
    assert load.stats.hits == 2


def test_scope_keeps_what_the_cache_does_not(cache):
    """A function with ttl 0 is called once per scope."""
    load, loads = counted(cache, ttl=0)
    with cache.request_scope():
        assert [load(1), load(1)] == [1, 1]
    with cache.request_scope():
        load(1)
    assert loads == [1, 1]


@pytest.mark.parametrize(
    "remove",
    [
        lambda cache, load: load.invalidate(1),
        lambda cache, load: cache.sync.invalidate(load.key(1)),
        lambda cache, load: cache.sync.invalidate_pattern("x:*"),
        lambda cache, load: cache.sync.invalidate_tags("all"),
        lambda cache, load: cache.sync.clear(),
        lambda cache, load: load.put("mine", 1),
        lambda cache, load: cache.sync.set(load.key(1), "mine"),
        lambda cache, load: load.refresh(1),
    ],
)
def test_invalidations_and_writes_inside_a_scope_are_seen(cache, remove):
    """Whatever the code inside invalidates or writes is read anew; another tag leaves the value alone."""
    load, _ = counted(cache, tags=["all"])
    with cache.request_scope():
        load(1)
        cache.sync.invalidate_tags("other")
        assert load(1) == 1
        remove(cache, load)
        assert load(1) in {2, "mine"}


def test_invalidations_outside_a_scope_are_not_seen_inside(cache):
    """What others do meanwhile does not disturb the scope."""
    load, _ = counted(cache)
    outside = contextvars.copy_context()
    with cache.request_scope():
        load(1)
        outside.run(load.invalidate, 1)
        assert load(1) == 1
    assert load(1) == 2


async def test_a_load_overtaken_by_an_invalidation_is_not_kept_in_the_scope(cache):
    """If a task of the scope invalidates while another loads, the next read is a new one."""
    go = asyncio.Event()
    loads = []

    @cache.cached("x:{x}")
    async def load(x: int):
        loads.append(x)
        if len(loads) == 1:
            await go.wait()
        return len(loads)

    with cache.request_scope():
        first = asyncio.create_task(load(1))
        await asyncio.sleep(0)
        await load.invalidate(1)
        go.set()
        assert await first == 1
        assert await load(1) == 2
        assert await load(1) == 2


def test_loaders_read_anew(cache):
    """What a loader reads inside a scope is no older value of the scope: its own result is for everybody."""
    load, _ = counted(cache)

    @cache.cached("double:{x}")
    def double(x: int):
        return 2 * load(x)

    outside = contextvars.copy_context()
    with cache.request_scope():
        assert load(1) == 1
        outside.run(load.invalidate, 1)
        assert double(1) == 4
        assert load(1) == 1


async def test_tasks_of_a_scope_share_it_and_may_outlive_it(cache):
    """Child tasks read what the scope read; after its end they read as everybody does."""
    load, _ = counted(cache, ttl=0)
    go = asyncio.Event()

    async def child():
        inside = load(1)
        await go.wait()
        return inside, load(1)

    with cache.request_scope():
        load(1)
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
    go.set()
    assert await task == (1, 2)


def test_the_innermost_context_counts(cache):
    """A bypass inside a scope bypasses, and a scope inside a bypass remembers."""
    load, _ = counted(cache)
    with cache.request_scope():
        assert load(1) == 1
        with cache.bypass():
            assert load(1) == 2
            with cache.request_scope():
                assert load(1) == 1
        assert load(1) == 1


def test_contexts_come_and_go_under_the_calls_of_other_threads(cache):
    """Whatever code a wrapper has at the moment, a call outside of every context gets the cached value."""
    load, loads = counted(cache)
    load(1)
    over = threading.Event()
    wrong = []

    def read():
        while not over.is_set():
            if load(1) != 1:
                wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        with cache.request_scope():
            assert load(1) == 1
        with cache.bypass():
            assert load(1) > 1
    over.set()
    for thread in threads:
        thread.join(10)
    assert not wrong
    assert len(loads) == 301
