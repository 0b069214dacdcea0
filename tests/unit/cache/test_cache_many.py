"""Many keys at once: .many, get_many, set_many, and loaders of many ids."""

import asyncio
import inspect
import threading
from contextvars import Context

import pytest

from isp_perf.cache import CacheManager, entry
from isp_perf.errors import CacheRecursionError, ConfigurationError
from isp_perf.testing import ManualClock
from isp_perf.typing import Read


@pytest.fixture
def cache():
    return CacheManager()


def batched(cache, *, tasks, absent=(), broken=(), **policy):
    """A cached loader of many ids, and the lists of ids it was called with."""
    calls = []

    def answer(ids):
        calls.append(list(ids))
        found = {each: each * 10 for each in ids if each not in absent}
        return found | {each: LookupError(each) for each in ids if each in broken}

    if tasks:

        @cache.cached_many("item:{item}", **policy)
        async def load(ids: list[int]) -> dict[int, int]:
            await asyncio.sleep(0)
            return answer(ids)

    else:

        @cache.cached_many("item:{item}", **policy)
        def load(ids: list[int]) -> dict[int, int]:
            return answer(ids)

    return load, calls


def run(outcome):
    """Run a coroutine to its end; anything else is the outcome already."""
    return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome


BOTH = pytest.mark.parametrize("tasks", [True, False], ids=["tasks", "threads"])


async def test_concurrent_single_calls_are_one_call_of_the_loader(cache):
    """What tasks ask for in one tick of the loop is loaded together, each id once."""
    load, calls = batched(cache, tasks=True)
    values = await asyncio.gather(*(load(number % 50) for number in range(100)))
    assert values == [number % 50 * 10 for number in range(100)]
    assert calls == [list(range(50))]
    assert await load(7) == 70
    assert load.stats.misses == 100
    assert load.stats.hits == 1


@BOTH
def test_many_ids_are_one_call_of_the_loader(cache, tasks):
    """.many keeps order and repetitions, and loads only what is missing, together."""
    load, calls = batched(cache, tasks=tasks)
    assert run(load(2)) == 20
    assert run(load.many([1, 2, 3, 1])) == [10, 20, 30, 10]
    assert calls == [[2], [1, 3]]
    assert load.stats.hits + load.stats.misses == 5
    assert run(load.many([])) == []


@BOTH
def test_ids_that_the_loader_leaves_out_are_none(cache, tasks):
    """An absent id is None, kept as cache_none says."""
    clock = ManualClock()
    cache.configure(clock=clock)
    load, calls = batched(cache, tasks=tasks, absent=[2], cache_none=5)
    assert run(load.many([1, 2])) == [10, None]
    assert run(load(2)) is None
    clock.advance(5)
    assert run(load.many([1, 2])) == [10, None]
    assert calls == [[1, 2], [2]]


@BOTH
def test_one_id_may_fail_alone(cache, tasks):
    """The others are stored, then the error is raised; the next call asks for the failed id only."""
    load, calls = batched(cache, tasks=tasks, broken=[2])
    with pytest.raises(LookupError):
        run(load.many([1, 2, 3]))
    with pytest.raises(LookupError):
        run(load(2))
    assert run(load.many([1, 3])) == [10, 30]
    assert calls == [[1, 2, 3], [2]]


@BOTH
def test_a_failing_loader_fails_every_id_and_stores_nothing(cache, tasks):
    """Its error reaches each caller; so does that of a loader which returns no dict."""
    broken = [True]

    def answer(ids):
        if broken:
            raise ConnectionError
        return ids

    async def load_task(ids):
        return answer(ids)

    load = cache.cached_many("item:{item}")(load_task if tasks else answer)
    with pytest.raises(ConnectionError):
        run(load.many([1, 2]))
    broken.clear()
    with pytest.raises(TypeError, match="returns a dict of its ids, not list"):
        run(load(1))
    assert cache.stats().l1_size == 0


@BOTH
def test_a_thousand_ids_at_most(cache, tasks):
    """More ids are more calls; if one of them fails, what the others brought is stored."""
    calls = []

    def answer(ids):
        calls.append(len(ids))
        if 1500 in ids:
            raise ConnectionError
        return dict.fromkeys(ids, 1)

    async def load_task(ids):
        return answer(ids)

    load = cache.cached_many("item:{item}")(load_task if tasks else answer)
    with pytest.raises(ConnectionError):
        run(load.many(range(2500)))
    assert calls == [1000, 1000, 500]
    assert cache.stats().l1_size == 1500


async def test_a_batch_that_nobody_waits_for_is_cancelled(cache):
    """One caller that goes away disturbs nobody; when the last has gone the loader is cancelled."""
    entered, cancelled = asyncio.Event(), asyncio.Event()

    @cache.cached_many("item:{item}")
    async def load(ids):
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    one, two = asyncio.create_task(load(1)), asyncio.create_task(load(2))
    await entered.wait()
    one.cancel()
    await asyncio.sleep(0.01)
    assert not cancelled.is_set()
    two.cancel()
    await asyncio.wait_for(cancelled.wait(), 5)
    for task in (one, two):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_who_left_before_the_load_is_not_loaded(cache):
    """An id whose only caller was cancelled in the same tick is left out, and an empty batch is not loaded."""
    load, calls = batched(cache, tasks=True)
    one, two = asyncio.create_task(load(1)), asyncio.create_task(load(2))
    loop = asyncio.get_running_loop()
    loop.call_soon(one.cancel)
    assert await two == 20
    assert calls in ([[2]], [[1, 2]])
    lonely = asyncio.create_task(load(3))
    loop.call_soon(lonely.cancel)
    with pytest.raises(asyncio.CancelledError):
        await lonely


@BOTH
def test_a_batch_loader_that_asks_for_its_own_ids_is_told_so(cache, tasks):
    """It gets CacheRecursionError instead of waiting for ever, also for another id of the same batch."""

    async def load_task(ids):
        return {each: await load(2) for each in ids}

    def load_here(ids):
        return {each: load(2) for each in ids}

    load = cache.cached_many("item:{item}")(load_task if tasks else load_here)
    with pytest.raises(CacheRecursionError):
        run(load.many([1, 2]))


@BOTH
def test_entry_is_for_loaders_of_one(cache, tasks):
    """entry() in a batch loader is a ConfigurationError: it fills many entries."""

    def answer(ids):
        entry().ttl = 5
        return {}

    async def load_task(ids):
        return answer(ids)

    load = cache.cached_many("item:{item}")(load_task if tasks else answer)
    with pytest.raises(ConfigurationError, match="batch loader fills many"):
        run(load.many([1, 2]))


def test_the_single_function_has_names_and_types(cache):
    """It is called as the template's field says and carries the loader's names."""

    @cache.cached_many("user:{user_id}")
    async def users(ids: list[int]) -> dict[int, str]:
        """Load users."""
        return {}

    assert list(inspect.signature(users).parameters) == ["user_id"]
    assert inspect.signature(users).return_annotation == str | None
    assert (users.__name__, users.__doc__) == ("users", "Load users.")
    assert users.key(7) == users.key(user_id=7) == "user:7"
    assert inspect.iscoroutinefunction(users)

    def untyped(ids):
        return {}

    untyped.__annotations__ = {"ids": "Nowhere"}
    assert list(inspect.signature(cache.cached_many("by_digest:{hash}")(untyped)).parameters) == ["item"]


@pytest.mark.parametrize(
    ("key", "loader", "message"),
    [
        ("x:{a}:{b}", lambda ids: {"of": ids}, "one id has one field"),
        ("x:{a}", lambda: {"of": 0}, "takes one list"),
        ("x:{a}", lambda ids, more: {"of": ids}, "takes one list"),
        ("x:{a}", 5, "takes one list"),
        ("x", lambda ids: {"of": ids}, "gives every call one key"),
    ],
)
def test_bad_batch_loaders(cache, key, loader, message):
    """A loader or template that cannot work is a ConfigurationError when it is decorated."""
    with pytest.raises(ConfigurationError, match=message):
        cache.cached_many(key)(loader)


async def test_values_of_a_batch_are_shared_with_other_processes(cache, remote):
    """Loaded values are in the remote level, typed, and another manager reads all in one command."""
    cache.configure(redis=remote)
    load, _ = batched(cache, tasks=True)
    await load.many(range(100))
    other, calls = batched(CacheManager(redis=remote), tasks=True)
    remote.asked.clear()
    assert await other.many(range(100)) == [number * 10 for number in range(100)]
    assert calls == []
    assert remote.asked["Read"] == 1
    assert remote.asked["Lease"] == 0
    assert other.stats.l2_hits == 100
    assert await other(5) == 50
    assert other.stats.l1_hits == 1


@BOTH
def test_one_read_for_all_that_is_missing(cache, remote, tasks):
    """.many of an ordinary function reads the remote level once and calls the loader for the rest only."""
    cache.configure(redis=remote)
    loads = []

    def work(x: int) -> int:
        loads.append(x)
        return x + 1

    async def work_task(x: int) -> int:
        return work(x)

    first = cache.cached("n:{x}")(work_task if tasks else work)
    second = CacheManager(redis=remote).cached("n:{x}")(work_task if tasks else work)
    run(first.many([1, 2]))
    run(second(3))
    remote.asked.clear()
    assert run(second.many([1, 2, 3, 4, 5, 4])) == [2, 3, 4, 5, 6, 5]
    assert loads == [1, 2, 3, 4, 5]
    assert remote.asked["Read"] == 1
    assert second.stats.hits + second.stats.misses == 1 + 6


@BOTH
def test_many_of_a_function_that_needs_smaller_ones(cache, tasks):
    """A recursive function may be asked for many: no load waits for one that has not begun."""

    def fib(n: int) -> int:
        return n if n < 2 else function(n - 1) + function(n - 2)

    async def fib_task(n: int) -> int:
        return n if n < 2 else await function(n - 1) + await function(n - 2)

    function = cache.cached("fib:{n}")(fib_task if tasks else fib)
    assert run(function.many([10, 5, 9])) == [55, 5, 34]
    assert function.stats.loads == 11


async def test_a_value_read_before_an_invalidation_is_not_kept(cache, remote):
    """A batch read that an invalidation overtakes is returned, and the next call loads."""
    cache.configure(redis=remote)
    load, _ = batched(cache, tasks=True)
    await load.many([1, 2])
    other, others = batched(CacheManager(redis=remote), tasks=True)
    perform = remote.channel

    def overtaking(prefix, listener):
        channel = perform(prefix, listener)
        send = channel.perform

        async def performed(orders, *, within):
            answers = await send(orders, within=within)
            if isinstance(orders[0], Read):
                await other.invalidate(1)
            return answers

        channel.perform = performed
        return channel

    remote.channel = overtaking
    assert await other.many([1, 2]) == [10, 20]
    assert await other(1) == 10
    assert others == [[1]]


@BOTH
def test_many_in_a_scope_and_in_a_bypass(cache, tasks):
    """A bypass loads all anew, a scope returns what it has read."""
    load, calls = batched(cache, tasks=tasks)
    run(load.many([1, 2]))
    with cache.bypass():
        assert run(load.many([1, 2])) == [10, 20]
    assert calls == [[1, 2], [1, 2]]
    with cache.request_scope():
        run(load.many([1, 2]))
        Context().run(lambda: run(load.invalidate(1)))
        assert run(load.many([1, 2, 3])) == [10, 20, 30]
    assert calls[2:] == [[3]]


@BOTH
def test_set_many_is_one_write(cache, remote, tasks):
    """All values leave together, and arrive; one that cannot be stored does not keep the others back."""
    cache.configure(redis=remote)
    manager = cache if tasks else cache.sync
    run(manager.set_many({"a": 1, "b": 2, "c": 3}, ttl=60))
    assert run(CacheManager(redis=remote).get_many(["a", "b", "c"])) == {"a": 1, "b": 2, "c": 3}
    assert remote.asked["Put"] == 3
    with pytest.raises(Exception, match="would come back as something else"):
        run(manager.set_many({"d": 4, "e": object()}))
    assert run(CacheManager(redis=remote).get("d")) == 4


def test_what_a_sick_level_was_not_told_is_kept_nowhere(cache, remote):
    """set_many from a thread raises nothing when the remote level fails, and the keys are removed there later."""
    cache.configure(redis=remote)
    remote.sick = True
    cache.sync.set_many({"a": 1, "b": 2})
    assert cache.sync.get_many(["a", "b"]) == {}
    assert cache.stats().remote_errors >= 1
    assert cache.health().journal == 2


def test_threads_that_ask_for_each_others_ids_do_not_wait_for_ever(cache):
    """Two threads whose batches overlap the other way round both get their values, each id loaded once."""
    begun, calls = threading.Event(), []

    @cache.cached_many("item:{item}")
    def load(ids):
        calls.append(list(ids))
        if len(calls) == 1:
            begun.wait(10)
        return {each: each for each in ids}

    results = {}
    one = threading.Thread(target=lambda: results.setdefault("one", load.many([1, 2, 3])))
    two = threading.Thread(target=lambda: results.setdefault("two", load.many([3, 4, 1])))
    one.start()
    while not calls:
        pass
    two.start()
    while len(calls) < 2:
        pass
    begun.set()
    one.join(10)
    two.join(10)
    assert results == {"one": [1, 2, 3], "two": [3, 4, 1]}
    assert calls == [[1, 2, 3], [4]]
