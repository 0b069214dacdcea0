"""Promises of the decorator, of freshness and of errors that have no better place."""

import asyncio
import contextvars
import copy
import inspect
import threading

import pytest

from isp_perf.cache import CacheManager, CachePolicy
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock, MemoryLevel

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def cache(clock):
    return CacheManager(clock=clock)


async def test_a_cached_coroutine_function_gives_coroutines(cache):
    """create_task, TaskGroup and gather take its calls, hits included, as those of any coroutine function."""

    @cache.cached("x:{x}")
    async def load(x: int) -> int:
        return x

    for _ in range(2):
        call = load(1)
        assert inspect.iscoroutine(call)
        assert await asyncio.create_task(call) == 1
        async with asyncio.TaskGroup() as group:
            task = group.create_task(load(2))
        assert task.result() == 2


def test_two_managers_and_two_decorations_are_independent(cache):
    """One function under two managers, or decorated twice, has two caches."""
    loads = []

    def load(x: int):
        loads.append(x)
        return len(loads)

    one, other = cache.cached("x:{x}")(load), CacheManager().cached("x:{x}")(load)
    assert [one(1), other(1), one(1), other(1)] == [1, 2, 1, 2]
    outer = CacheManager().cached("y:{x}")(one)
    assert [outer(5), outer(5), one(5)] == [3, 3, 3]
    outer.invalidate(5)
    assert outer(5) == 3
    one.invalidate(5)
    assert [outer(5), one(5)] == [3, 4]


def test_methods_of_two_instances_do_not_share_a_template(cache):
    """Decorating bound methods of two instances under one key would mix their values: the second one is refused."""

    class Shop:
        def __init__(self, name):
            self.name = name

        def stock(self, x):
            return self.name

    one, other = Shop("a"), Shop("b")
    assert cache.cached("stock:{x}")(one.stock)(1) == "a"
    kept = cache.cached("stock2:{x}")(one.stock)
    with pytest.raises(ConfigurationError, match="already has this template"):
        cache.cached("stock2:{x}")(other.stock)
    assert kept(1) == "a"


def test_copies_are_the_function_itself(cache):
    """Copy and deepcopy treat it as they treat any function."""

    @cache.cached("x:{x}")
    def load(x: int):
        return x

    assert copy.copy(load) is copy.deepcopy(load) is load


def test_jitter_shortens_and_never_lengthens(cache, clock):
    """With jitter, entries stored together end at different moments, all within the last share of the ttl."""

    @cache.cached("x:{x}", ttl=100, jitter=0.2)
    def load(x: int):
        return x

    for x in range(200):
        load(x)
    left = [cache.sync.explain(load.key(x)).ttl_left for x in range(200)]
    assert all(80 <= seconds <= 100 for seconds in left)
    assert max(left) - min(left) > 10


async def test_l1_ttl_shortens_the_local_life_only(clock):
    """After l1_ttl the value comes from the remote level, without a load, until its ttl."""
    cache = CacheManager(redis=MemoryLevel(clock), clock=clock)
    loads = []

    @cache.cached("x:{x}", ttl=100, l1_ttl=10)
    async def load(x: int) -> int:
        loads.append(x)
        return x

    await load(1)
    await load(1)
    assert load.explain(1).ttl_left == 10
    clock.advance(10)
    await load(1)
    assert loads == [1]
    assert load.stats.l2_hits >= 1
    clock.advance(85)
    await load(1)
    assert load.explain(1).ttl_left == 5
    clock.advance(5)
    await load(1)
    assert loads == [1, 1]


def test_kept_errors_are_per_type_and_can_be_invalidated(cache, clock):
    """A subclass of a listed error is kept for its time; other errors are not; invalidate and put remove it."""
    loads = []

    @cache.cached("x:{x}", cache_errors={LookupError: 30, OSError: 0})
    def load(x: int):
        loads.append(x)
        raise {1: KeyError("k"), 2: ValueError(), 3: ConnectionError()}[x]

    for x in (1, 1, 2, 2, 3, 3):
        with pytest.raises((LookupError, ValueError, OSError)):
            load(x)
    assert loads == [1, 2, 2, 3, 3]
    assert load.peek(1, default="nothing") == "nothing"
    load.invalidate(1)
    with pytest.raises(KeyError):
        load(1)
    assert loads[-1] == 1
    load.put("value", 1)
    assert load(1) == "value"


def test_when_runs_outside_every_lock(cache):
    """The condition may use the cache itself, also from another thread; its errors are the caller's."""
    seen = []

    def decide(value):
        if value == "broken":
            raise ZeroDivisionError
        done = threading.Event()
        threading.Thread(target=lambda: (cache.sync.get("other"), done.set()), daemon=True).start()
        seen.append(done.wait(5))
        return value != "no"

    @cache.cached("x:{x}", when=decide)
    def load(x: str):
        return x

    assert [load("yes"), load("yes"), load("no"), load("no")] == ["yes", "yes", "no", "no"]
    assert seen == [True] * 3
    with pytest.raises(ZeroDivisionError):
        load("broken")
    assert cache.stats().l1_size == 1


def test_an_identity_is_any_field_or_the_digest(cache):
    """private=True accepts a field, an attribute of one and {hash}."""

    def load(user):
        return user

    for key in ("a:{user}", "b:{user.id}", "c:{hash}", None):
        cache.cached(key, private=True)(load)
    with pytest.raises(ConfigurationError, match="whose data it is"):
        cache.cached("front_page", private=True)(lambda: 1)


def test_zero_is_not_mistaken_for_unset(cache):
    """ttl=0, cache_none=0 and entry times of 0 mean 0, not a default."""
    loads = []

    @cache.cached("x:{x}", ttl=50, cache_none=0)
    def load(x: int):
        loads.append(x)

    load(1)
    load(1)
    assert loads == [1, 1]
    assert CachePolicy(ttl=0, l1_ttl=0, stale_if_error=0).fresh == 0
    cache.sync.set("k", 1, ttl=0)
    assert cache.sync.get("k") is None


async def test_a_load_runs_in_its_leaders_context_and_a_refresh_in_none(cache, clock):
    """The loader sees the context variables of the first caller; a background refresh sees those of no request."""
    seen, twice = [], asyncio.Event()

    @cache.cached("x:{x}", ttl=10, stale_while_revalidate=100)
    async def load(x: int):
        seen.append(REQUEST.get())
        if len(seen) == 2:
            twice.set()
        return len(seen)

    REQUEST.set("first")
    await load(1)
    REQUEST.set("second")
    clock.advance(11)
    assert await load(1) == 1
    await twice.wait()
    assert seen == ["first", "none"]


def test_keys_in_redis_are_namespace_schema_and_template(remote):
    """The wire key shows where it belongs, and its digests depend on the namespace alone."""
    one = CacheManager(redis=remote, namespace="shop", schema=7, secret=b"s" * 16)
    two = CacheManager(redis=remote, namespace="shop", schema=8, secret=b"t" * 32)
    other = CacheManager(namespace="other")

    def load(x: int) -> int:
        return x

    functions = [manager.cached("n:{hash}")(load) for manager in (one, two, other)]
    keys = [function.key(1) for function in functions]
    assert keys[0] == keys[1] != keys[2]
    functions[0](1)
    assert f"shop:7:{keys[0]}" in remote.data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"isolate": "deep"}, "isolate='deep'"),
        ({"single_flight": "world"}, "single_flight='world'"),
        ({"max_stale": -1}, "max_stale=-1"),
        ({"cache_errors": {ValueError: -1}}, r"cache_errors\[ValueError\]=-1"),
        ({"when": 5}, "when='int'"),
        ({"tags": "a"}, "tags='a'"),
    ],
)
def test_bad_policies(cache, options, message):
    """Each field out of range is a ConfigurationError with its name."""
    with pytest.raises(ConfigurationError, match=message):
        cache.cached("x:{x}", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bytes": 0}, "max_bytes=0"),
        ({"l1": {}}, "l1='dict'"),
        ({"l1": 5}, "l1='int'"),
        ({"secret": b"short"}, r"secret='\(hidden\)'"),
        ({"after_outage": "hope"}, "after_outage='hope'"),
        ({"observer": object()}, "observer='object'"),
    ],
)
def test_bad_manager_settings(options, message):
    """Each setting out of range is a ConfigurationError with its name; secrets are not shown."""
    with pytest.raises(ConfigurationError, match=message):
        CacheManager(**options)
