"""Concurrent loads: tasks, threads, cancellation, failure, invalidation."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from isp_perf._runtime.flights import LEADING, leading
from isp_perf.cache import CacheManager
from isp_perf.errors import CacheRecursionError


@pytest.fixture
def cache():
    return CacheManager()


def no_flights(cache):
    stores = [cache._keys.store, *(store for site in cache._sites for store in site.stores())]
    return not any(store.flights for store in stores)


async def test_a_thousand_tasks_share_one_load(cache):
    """1,000 concurrent callers of one key cause one load, and all get the value."""
    loads = []

    @cache.cached("x:{x}")
    async def load(x: int):
        loads.append(x)
        await asyncio.sleep(0.02)
        return object()

    values = await asyncio.gather(*(load(1) for _ in range(1000)))
    assert len(loads) == 1
    assert len(set(map(id, values))) == 1
    assert load.stats.joined == 999
    assert no_flights(cache)


def test_two_hundred_threads_share_one_load(cache):
    """200 threads that miss together cause one load."""
    loads = []
    ready = threading.Barrier(200)

    @cache.cached("x:{x}")
    def load(x: int):
        loads.append(x)
        threading.Event().wait(0.05)
        return object()

    def call():
        ready.wait()
        return load(1)

    with ThreadPoolExecutor(200) as pool:
        values = [future.result() for future in [pool.submit(call) for _ in range(200)]]
    assert len(loads) == 1
    assert len(set(map(id, values))) == 1
    assert no_flights(cache)


async def test_a_thousand_tasks_share_one_failure(cache):
    """1,000 concurrent callers of a failing loader cause one load, and each gets the error."""
    loads = []

    @cache.cached("x:{x}")
    async def load(x: int):
        loads.append(x)
        await asyncio.sleep(0.02)
        raise ConnectionError("down")

    outcomes = await asyncio.gather(*(load(1) for _ in range(1000)), return_exceptions=True)
    assert len(loads) == 1
    assert {(type(error), error.args) for error in outcomes} == {(ConnectionError, ("down",))}
    assert no_flights(cache)


async def test_a_thousand_tasks_and_a_cancelled_leader_cause_two_loads(cache):
    """When the leader of 1,000 callers is cancelled, one more load serves all the others."""
    loads = []

    @cache.cached("x:{x}")
    async def load(x: int):
        loads.append(x)
        await asyncio.sleep(0.02)
        return "value"

    tasks = [asyncio.create_task(load(1)) for _ in range(1000)]
    await asyncio.sleep(0.005)
    tasks[0].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == ["value"] * 999
    assert len(loads) == 2
    assert no_flights(cache)


async def test_cancelled_leader_hands_over(cache):
    """When the first of ten callers is cancelled, one waiter loads again and nine get the value."""
    loads = []

    @cache.cached("x:{x}")
    async def load(x: int):
        loads.append(x)
        await asyncio.sleep(0.02)
        return "value"

    tasks = [asyncio.create_task(load(1)) for _ in range(10)]
    await asyncio.sleep(0.005)
    tasks[0].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == ["value"] * 9
    assert len(loads) == 2
    assert no_flights(cache)


async def test_cancelled_waiter_disturbs_nobody(cache):
    """When a waiter is cancelled the others get the value of the one load."""
    loads = []

    @cache.cached("x:{x}")
    async def load(x: int):
        loads.append(x)
        await asyncio.sleep(0.02)
        return "value"

    tasks = [asyncio.create_task(load(1)) for _ in range(10)]
    await asyncio.sleep(0.005)
    tasks[5].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes.count("value") == 9
    assert len(loads) == 1


async def test_leader_and_its_heir_cancelled_together(cache):
    """A waiter that is cancelled in the moment it was to take over passes the load on."""

    @cache.cached("x:{x}")
    async def load(x: int):
        await asyncio.sleep(0.02)
        return "value"

    tasks = [asyncio.create_task(load(1)) for _ in range(4)]
    await asyncio.sleep(0.005)
    tasks[0].cancel()
    await asyncio.sleep(0)
    tasks[1].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[2:] == ["value", "value"]
    assert no_flights(cache)


async def test_all_callers_gone_cancels_the_load(cache):
    """When every caller is cancelled, the load is too, and nothing is left behind."""
    ended = []

    @cache.cached("x:{x}")
    async def load(x: int):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(x)
            raise

    tasks = [asyncio.create_task(load(1)) for _ in range(5)]
    await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert no_flights(cache)
    assert ended


async def test_failure_reaches_every_waiter_as_its_own_copy(cache):
    """One failing load fails all callers, each with an exception object of its own; nothing is stored."""
    loads = []

    class UnfriendlyError(Exception):
        def __init__(self, code, text):
            super().__init__(text)
            self.code = code

    @cache.cached("x:{x}")
    async def load(x: int):
        loads.append(x)
        await asyncio.sleep(0.01)
        raise (ValueError("no") if x else UnfriendlyError(1, "text"))

    outcomes = await asyncio.gather(*(load(1) for _ in range(5)), return_exceptions=True)
    assert len(loads) == 1
    assert all(type(error) is ValueError and error.args == ("no",) for error in outcomes)
    assert len(set(map(id, outcomes))) == 5
    assert all(error.__cause__ is outcomes[0] for error in outcomes[1:])
    again = await asyncio.gather(*(load(0) for _ in range(3)), return_exceptions=True)
    assert {type(error) for error in again} == {UnfriendlyError}
    assert no_flights(cache)


def test_keyboard_interrupt_concerns_the_leader_alone(cache):
    """An interrupted leader raises; a waiting thread loads again and gets the value."""
    started, go = threading.Event(), threading.Event()
    loads = []

    @cache.cached("x:{x}")
    def load(x: int):
        loads.append(x)
        if len(loads) == 1:
            started.set()
            go.wait()
            raise KeyboardInterrupt
        return "value"

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(load, 1)
        started.wait()
        waiter = pool.submit(load, 1)
        while not load.stats.joined:
            pass
        go.set()
        assert isinstance(leader.exception(), KeyboardInterrupt)
        assert waiter.result() == "value"


async def test_dependent_loads_never_deadlock(cache):
    """Two tasks whose loads wait for one another get an error instead of waiting for ever."""
    both = asyncio.Barrier(2)

    @cache.cached("one:{x}")
    async def one(x: int):
        await both.wait()
        return await two(x)

    @cache.cached("two:{x}")
    async def two(x: int):
        await both.wait()
        return await one(x)

    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(one(1), two(1), return_exceptions=True)
    assert all(isinstance(error, CacheRecursionError) for error in outcomes)
    assert no_flights(cache)


async def test_gather_inside_a_loader_never_deadlocks(cache):
    """A loader that waits for a child task asking for the same key gets CacheRecursionError."""

    @cache.cached("x:{x}")
    async def load(x: int):
        return await asyncio.gather(load(x))

    async with asyncio.timeout(5):
        with pytest.raises(CacheRecursionError):
            await load(1)


async def test_put_during_a_load_wins(cache):
    """A value put while the key loads stays; the load's callers get what they loaded."""
    gate = asyncio.Event()

    @cache.cached("x:{x}")
    async def load(x: int):
        await gate.wait()
        return "loaded"

    task = asyncio.create_task(load(1))
    await asyncio.sleep(0)
    await load.put("put", 1)
    gate.set()
    assert await task == "loaded"
    assert await load(1) == "put"


async def test_pattern_and_clear_detach_loads_too(cache):
    """A load that began before invalidate_pattern or clear is not stored."""
    gates = {}

    @cache.cached("x:{x}")
    async def load(x: int):
        gates[x] = asyncio.Event()
        await gates[x].wait()
        return x

    tasks = [asyncio.create_task(load(x)) for x in (1, 2)]
    await asyncio.sleep(0)
    await cache.invalidate_pattern("x:1")
    assert (await cache.clear()).delivered
    for gate in gates.values():
        gate.set()
    assert await asyncio.gather(*tasks) == [1, 2]
    assert cache.stats().l1_size == 0


def test_loop_closed_under_the_leader_is_taken_over(cache):
    """A load whose loop was closed without cancelling it does not block callers on another loop."""
    loads = []

    @cache.cached("x:{x}")
    async def load(x: int):
        loads.append(x)
        if len(loads) == 1:
            await asyncio.sleep(60)
        return "value"

    loop = asyncio.new_event_loop()
    task = loop.create_task(load(1))
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    assert asyncio.run(load(1)) == "value"
    task._log_destroy_pending = False
    del task


def test_two_loops_share_one_load(cache):
    """Tasks of loops in different threads wait for the same load."""
    loads = []

    @cache.cached("x:{x}")
    async def load(x: int):
        loads.append(x)
        await asyncio.sleep(0.05)
        return object()

    ready = threading.Barrier(4)

    def run():
        ready.wait()
        return asyncio.run(load(1))

    with ThreadPoolExecutor(4) as pool:
        values = [future.result() for future in [pool.submit(run) for _ in range(4)]]
    assert len(loads) == 1
    assert len(set(map(id, values))) == 1


async def test_nothing_of_a_failed_load_stays_alive(cache):
    """Exceptions of failed loads are released without the collector."""

    class NoisyError(Exception):
        pass

    @cache.cached("x:{x}")
    async def load(x: int):
        raise NoisyError

    gc.disable()
    try:
        try:
            await load(1)
        except NoisyError as error:
            watch = weakref.ref(error)
        assert watch() is None
    finally:
        gc.enable()
    assert LEADING.get() is None


@pytest.mark.parametrize("broken", [ValueError, KeyboardInterrupt])
def test_a_condition_that_raises_ends_its_load(broken):
    """An error of ``when`` is the caller's, and leaves no load behind that nobody leads."""

    def condition(value):
        if value:
            raise broken

    manager = CacheManager("condition")

    @manager.cached("n:{n}", ttl=60, when=condition)
    def load(n):
        return n

    with pytest.raises(broken):
        load(1)
    with pytest.raises(broken):
        load(1)
    assert leading() is None
    assert load(0) == 0
    assert load.stats.loads == 3


@pytest.mark.parametrize("options", [{"jitter": 0.5}, {"cache_none": False}, {"cache_none": 5}, {"isolate": "copy"}])
def test_conditions_on_keeping_hold_the_short_way_too(options):
    """What a policy says about keeping a result is heeded whichever way the miss went."""
    manager = CacheManager("conditions")
    values = iter([None, [1], [2]])

    @manager.cached("n:{_n}", ttl=60, **options)
    def load(_n):
        return next(values)

    kept = options.get("cache_none", True) is not False
    assert load(1) is None
    assert load(1) == (None if kept else [1])
    load(2).append("mine")
    shared = options.get("isolate") != "copy"
    assert (load(2)[-1] == "mine") is shared
