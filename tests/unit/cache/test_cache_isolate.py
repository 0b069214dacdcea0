"""isolate="copy": every caller gets an object of its own."""

import asyncio
import inspect
from dataclasses import dataclass, field

import pytest

from isp_perf.cache import CacheManager
from isp_perf.cache._copies import own
from isp_perf.testing import ManualClock


@dataclass
class Box:
    items: list = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    name: str
    size: int = 0


@dataclass(frozen=True)
class Holder:
    items: list


@pytest.fixture
def cache():
    return CacheManager()


def run(outcome):
    """Run a coroutine to its end; anything else is the outcome already."""
    return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome


def function(cache, *, tasks, **policy):
    """A cached function that returns the same list each time."""
    kept = [1, {"a": [2]}]

    if tasks:

        @cache.cached("x:{x}", isolate="copy", **policy)
        async def load(x: int):
            return kept

    else:

        @cache.cached("x:{x}", isolate="copy", **policy)
        def load(x: int):
            return kept

    return load


@pytest.mark.parametrize("tasks", [True, False], ids=["tasks", "threads"])
class TestCopy:
    """Whatever one caller does to the result, no other caller sees it."""

    @pytest.mark.parametrize(
        "read",
        [
            lambda load: load(1),
            lambda load: load.refresh(1),
            lambda load: load.peek(1),
            lambda load: run(load.many([1, 2]))[0],
            lambda load: run(load.many([1, 1]))[1],
        ],
    )
    def test_every_way_of_reading_gives_ones_own(self, cache, tasks, read):
        """A call, the first included, refresh, peek and many hand out copies."""
        load = function(cache, tasks=tasks)
        run(load(1))[1]["a"].append("changed")
        mine = run(read(load))
        assert mine == [1, {"a": [2]}]
        mine.clear()
        assert run(load(1)) == [1, {"a": [2]}]

    def test_what_is_put_may_be_changed_afterwards(self, cache, tasks):
        """What put stores is a copy."""
        load = function(cache, tasks=tasks)
        mine = ["mine"]
        run(load.put(mine, 1))
        mine.append("changed")
        assert run(load(1)) == ["mine"]

    def test_stale_values_and_values_by_key_are_copies(self, cache, tasks):
        """So are a stale value, and the entry read by its key."""
        clock = ManualClock()
        cache.configure(clock=clock)
        load = function(cache, tasks=tasks, ttl=10, stale_while_revalidate=100)
        run(load(1)).clear()
        cache.sync.get(load.key(1)).clear()
        clock.advance(11)
        assert run(load(1)) == [1, {"a": [2]}]

    def test_in_a_request_scope(self, cache, tasks):
        """The scope hands out copies of what it has read."""
        load = function(cache, tasks=tasks, ttl=0)
        with cache.request_scope():
            run(load(1)).clear()
            assert run(load(1)) == [1, {"a": [2]}]


def test_get_or_set_hands_out_copies():
    """With isolate="copy" the value stored by get_or_set is nobody's."""
    cache = CacheManager()
    for _ in range(3):
        value = cache.sync.get_or_set("k", lambda: [1], isolate="copy")
        assert value == [1]
        value.append(2)


def test_share_gives_the_stored_object(cache):
    """By default there is one object, and a hit costs no copy."""

    @cache.cached("x:{x}")
    def load(x: int):
        return [x]

    assert load(1) is load(1)


@pytest.mark.parametrize("value", [None, 1, "text", b"bytes", (1, "a"), Frozen("a"), frozenset({1})])
def test_immutable_values_are_equal_copies(value):
    """What cannot change comes back equal; atoms and flat frozen records as they are."""
    assert own(value) == value
    if not isinstance(value, tuple):
        assert own(value) is value


@pytest.mark.parametrize("value", [[1, [2]], {"a": {"b": [1]}}, {1, 2}, ([1], {"a": 1}), Box([1, [2]]), Holder([1])])
def test_copies_share_nothing_that_can_change(value):
    """Containers and records at any depth are new."""
    mine = own(value)
    assert mine == value
    assert mine is not value
    assert type(mine) is type(value)


def test_values_that_contain_themselves_are_copied():
    """A cycle is copied as a cycle."""
    loop: list = [1]
    loop.append(loop)
    mine = own(loop)
    assert mine is not loop
    assert mine[1] is mine
