"""Local hits are timed one at a time, on request, and every other hit runs the code it always ran."""

import asyncio
import threading
import time

import pytest

from isp_perf.cache import CacheManager
from isp_perf.errors import ConfigurationError
from isp_perf.metrics._from_cache import CACHE
from isp_perf.metrics._snapshot import Readings


@pytest.fixture
def manager():
    return CacheManager("timed")


@pytest.fixture
def square(manager):
    @manager.cached("square:{number}", ttl=60)
    def square(number: int) -> int:
        return number * number

    square(2)
    return square


def timed(manager):
    return sum(manager.tally().hit_cells)


def test_one_hit_is_timed_for_each_request(manager, square):
    """The next hit is timed and no other; it answers and counts as every hit does, and the wrapper is as before."""
    plain = square.__code__
    for round_ in range(1, 4):
        manager.sample_hits()
        assert square.__code__ is not plain
        assert [square(2), square(2), square(number=2)] == [4, 4, 4]
        assert square.__code__ is plain
        assert timed(manager) == round_
    assert manager.stats().hits == 9
    assert 0 < manager.tally().hit_seconds < 60


def test_a_miss_is_not_timed(manager, square):
    """A call that finds nothing loads as always, and the first hit after it is timed."""
    manager.sample_hits()
    assert square(3) == 9
    assert timed(manager) == 0
    assert square(3) == 9
    assert timed(manager) == 1


async def test_coroutine_functions_copies_and_methods_are_timed(manager):
    """Whatever the wrapper looks like, its hits can be timed."""

    class Shop:
        @manager.cached(ttl=60)
        def stock(self, item: str) -> int:
            return len(item)

    @manager.cached("names:{given}", ttl=60, isolate="copy")
    async def names(given: str, *, rare: int = 1, started: int = 2) -> list[str]:
        return [given] * rare

    manager.sample_hits()
    first = await names("a")
    assert (await names("a"), first is await names("a")) == (["a"], False)
    assert timed(manager) == 1
    shop = Shop()
    assert [shop.stock("ab"), shop.stock("ab"), shop.stock("ab")] == [2, 2, 2]
    assert timed(manager) == 2


def test_every_function_has_its_turn(manager):
    """Of many functions a few are timed at each request, and all of them after enough requests."""
    functions = [manager.cached(f"number:{index}:{{n}}", ttl=60)(lambda n: n) for index in range(5)]
    plain = [function.__code__ for function in functions]
    for _ in range(3):
        manager.sample_hits(2)
    assert all(function.__code__ is not code for function, code in zip(functions, plain, strict=True))


def test_a_context_that_passes_the_cache_by_is_obeyed(manager, square):
    """A wrapper that was to time a hit still asks for the mode of its context, and is not asked to time one then."""
    manager.sample_hits()
    with manager.bypass():
        manager.sample_hits()
        loads = manager.stats().loads
        assert square(2) == 4
        assert manager.stats().loads == loads + 1
    assert square(2) == 4
    assert timed(manager) == 0


def test_a_timed_hit_waits_for_nobody(manager, square):
    """While somebody else holds the cache's lock a hit is answered at once; a later one is timed instead."""
    manager.sample_hits()
    answers = []
    with manager._engine.local.lock:
        thread = threading.Thread(target=lambda: answers.append(square(2)))
        thread.start()
        thread.join(20)
        assert answers == [4]
    assert timed(manager) == 0
    assert square(2) == 4
    assert timed(manager) == 1


def test_hits_of_many_threads_are_all_counted(manager, square):
    """Threads that hit while hits are being timed lose no count, and each request times at most one."""
    stop = threading.Event()
    hits = [0] * 4

    def hit(place):
        while not stop.is_set():
            hits[place] += square(2) == 4

    threads = [threading.Thread(target=hit, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    requests, deadline = 0, time.monotonic() + 20
    while timed(manager) < 5 and time.monotonic() < deadline:
        manager.sample_hits()
        requests += 1
    stop.set()
    for thread in threads:
        thread.join(20)
    assert manager.stats().hits == sum(hits)
    assert 5 <= timed(manager) <= requests


def test_reading_the_metrics_asks_for_the_next_hit(manager, square):
    """Each reading shows the hits timed so far and has another one timed."""
    for number in range(3):
        readings = Readings()
        CACHE._read(manager, readings)
        [cells] = readings.columns()["isp_cache_get_duration_seconds"].by_key().values()
        assert sum(cells[:-1]) == number
        square(2)
    assert readings.columns()["isp_cache_get_duration_seconds"].keys == [("timed", "l1")]


def test_at_least_one_function_is_asked(manager):
    """A number below one is refused."""
    with pytest.raises(ConfigurationError, match="functions"):
        manager.sample_hits(0)


def test_a_manager_without_functions_has_nothing_to_time(manager):
    """Nothing happens where there is nothing to time, nor for functions that are gone."""
    manager.sample_hits()
    manager.cached("gone:{n}", ttl=60)(lambda n: n)
    manager.sample_hits()
    assert timed(manager) == 0
    assert asyncio.run(manager.get("x")) is None
