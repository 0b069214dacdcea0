"""The second level: shared values, races with invalidation, and a level that is sick."""

import asyncio
from collections import Counter
from dataclasses import dataclass

import pytest

from isp_perf.cache import CacheManager
from isp_perf.errors import CodecError, ConfigurationError
from isp_perf.testing import ManualClock, MemoryLevel
from isp_perf.typing import Fill


@dataclass
class Profile:
    name: str
    age: int


def profiles(cache, calls, **options):
    @cache.cached("profile:{name}", **{"ttl": 60, **options})
    async def profile(name: str) -> Profile:
        calls[name] += 1
        return Profile(name, 40 + calls[name])

    return profile


async def test_another_process_finds_the_value_with_its_type(remote):
    """What one manager loaded, the next one reads from the remote level as the annotated type."""
    calls = Counter()
    first = profiles(CacheManager(redis=remote), calls)
    second_manager = CacheManager(redis=remote)
    second = profiles(second_manager, calls)
    assert await first("ana") == await second("ana") == Profile("ana", 41)
    assert calls["ana"] == 1
    assert second.stats.l2_hits == 1
    assert second_manager.stats().hits == 1
    assert set(remote.data) == {"isp:1:profile:ana", "isp:%epoch"}


def test_plain_functions_use_the_blocking_half(remote):
    """A plain function shares its values too."""
    calls = Counter()

    def make(cache):
        @cache.cached("n:{x}")
        def load(x: int) -> int:
            calls[x] += 1
            return x

        return load

    one, other = make(CacheManager(redis=remote)), make(CacheManager(redis=remote))
    assert one(1) == other(1) == 1
    assert calls[1] == 1


async def test_local_life_never_outlives_the_remote_one():
    """A value read from the remote level lives only as long as it has left there."""
    clock = ManualClock(1000)
    remote = MemoryLevel(clock)
    calls = Counter()
    first = profiles(CacheManager(redis=remote, clock=clock), calls)
    second = profiles(CacheManager(redis=remote, clock=clock), calls)
    await first("ana")
    clock.advance(50)
    await second("ana")
    clock.advance(10)
    await second("ana")
    assert calls["ana"] == 2


async def test_another_shape_or_foreign_bytes_are_a_miss(remote):
    """A changed return type and damaged bytes are loaded anew, never an error."""
    calls = Counter()
    await profiles(CacheManager(redis=remote), calls)("ana")

    @dataclass
    class Wider:
        name: str
        age: int
        plan: str

    @CacheManager(redis=remote).cached("profile:{name}")
    async def wider(name: str) -> Wider:
        return Wider(name, 1, "gold")

    @CacheManager(redis=remote).cached("profile:{name}")
    async def text(name: str) -> str:
        return name

    wider.__wrapped__.__annotations__["return"] = Wider
    assert (await wider("ana")).plan == "gold"
    assert await text("ana") == "ana"
    remote.data["isp:1:profile:ana"] = b"\x80garbage"
    assert await profiles(CacheManager(redis=remote), calls)("ana") == Profile("ana", 42)


async def test_invalidation_reaches_the_remote_level(remote):
    """After invalidate nobody finds the value in either level."""
    calls = Counter()
    cache = CacheManager(redis=remote)
    load = profiles(cache, calls)
    await load("ana")
    receipt = await load.invalidate("ana")
    assert receipt.delivered
    assert set(remote.data) == {"isp:%epoch"}
    assert (await load("ana")).age == 42
    await cache.invalidate_pattern("profile:*")
    assert set(remote.data) == {"isp:%epoch"}
    assert (await load("ana")).age == 43


async def test_load_begun_before_an_invalidation_is_never_stored(remote):
    """The older load reaches its callers, neither level keeps it, and a later caller does not join it."""
    cache = CacheManager(redis=remote)
    gate, began, value = asyncio.Event(), asyncio.Event(), ["old"]

    @cache.cached("x:{key}")
    async def load(key: int) -> str:
        seen = value[0]
        if seen == "old":
            began.set()
            await gate.wait()
        return seen

    before = asyncio.create_task(load(1))
    await began.wait()
    value[0] = "new"
    await load.invalidate(1)
    assert await load(1) == "new"
    gate.set()
    assert await before == "old"
    assert await load(1) == "new"
    assert b"new" in remote.data["isp:1:x:1"]


async def test_fill_overtaken_by_an_invalidation_is_refused(remote):
    """If the removal arrives before the fill of an older load, the fill is refused, counted, and never read."""
    cache = CacheManager(redis=remote)
    arrived, go = asyncio.Event(), asyncio.Event()

    async def pause(orders):
        if isinstance(orders[0], Fill):
            arrived.set()
            await go.wait()

    remote.before = pause

    @cache.cached("x:{key}", ttl=60)
    async def load(key: int) -> str:
        return "old"

    before = asyncio.create_task(load(1))
    await arrived.wait()
    remote.before = None
    await cache.invalidate("x:1")
    assert await cache.get("x:1") is None
    go.set()
    assert await before == "old"
    assert await cache.get("x:1") is None
    assert "isp:1:x:1" not in remote.data
    assert cache._engine.second.tally.fill_refused == 1


async def until(condition, seconds=20.0):
    """Let the upkeep work until ``condition`` holds."""
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


async def test_sick_level_is_silent_and_left_alone(remote):
    """While Redis is away every call is served by the loader, and no caller asks it again."""
    calls = Counter()
    cache = CacheManager(redis=remote)
    load = profiles(cache, calls)
    await load("first")
    remote.sick = True
    asked = remote.asked["Lease"]
    for number in range(20):
        assert (await load(f"n{number}")).age == 41
    assert remote.asked["Lease"] <= asked + 1
    assert cache.stats().remote_errors >= 0
    assert cache.health().l2 == "down"
    remote.sick = False
    await until(lambda: cache.health().l2 == "up")
    await load("back")
    assert "isp:1:profile:back" in remote.data


async def test_what_was_invalidated_while_away_is_deleted_before_it_is_believed(remote):
    """Keys and patterns invalidated during an outage are deleted before anything is read after it."""
    cache = CacheManager(redis=remote, after_outage="trust")
    calls = Counter()
    load = profiles(cache, calls)
    await load("ana")
    await load("bob")
    remote.sick = True
    receipt = await load.invalidate("ana")
    assert receipt.queued
    assert (await cache.invalidate_pattern("profile:b*")).queued
    with pytest.raises(TimeoutError):
        await receipt.wait(0.01)
    remote.sick = False
    await receipt.wait(2)
    assert receipt.delivered
    assert (await load("ana")).age == 42
    assert (await load("bob")).age == 42


async def test_too_many_undelivered_keys_become_one(remote):
    """More removals than are worth remembering are delivered by giving the namespace another version."""
    cache = CacheManager(redis=remote)
    await cache.set("kept", 1)
    remote.data["other:1:x"] = b"not ours"
    remote.sick = True
    await cache.invalidate(*(f"k{number}" for number in range(100_001)))
    assert cache.health().journal == 1
    remote.sick = False
    await until(lambda: cache.health().l2 == "up")
    assert await cache.get("kept") is None
    assert remote.data["other:1:x"] == b"not ours"


async def test_failed_write_is_deleted_later(remote):
    """A write without an answer may have arrived; it is deleted before the key is believed."""
    cache = CacheManager(redis=remote)
    remote.sick = True
    await cache.set("k", "maybe")
    remote.sick = False
    remote.data["isp:1:k"] = b"arrived late"
    await until(lambda: cache.health().l2 == "up")
    assert "isp:1:k" not in remote.data


async def test_get_many_is_one_round_trip(remote):
    """All keys that are not in memory are asked for at once."""
    await CacheManager(redis=remote).set_many({"a": 1, "b": 2})
    cache = CacheManager(redis=remote)
    await cache.set("local", 0)
    assert await cache.get("local") == 0
    remote.asked.clear()
    assert await cache.get_many(["a", "local", "b", "absent", "a"]) == {"a": 1, "b": 2, "local": 0}
    assert remote.asked["Read"] == 1
    assert await cache.get_many([]) == {}


async def test_refuses_what_would_not_come_back(remote):
    """Without an annotation only plain values may go to the remote level."""
    cache = CacheManager(redis=remote)

    @cache.cached("bare:{x}")
    async def bare(x):
        return Profile("a", x)

    with pytest.raises(CodecError, match="annotate what the function returns"):
        await bare(1)
    with pytest.raises(CodecError, match="dict key of type tuple"):
        await cache.set("k", {(1, 2): 3})
    with pytest.raises(CodecError, match="tuple would come back"):
        await cache.set("k", (1, 2))


def test_redis_must_be_a_level():
    """Anything but a URL or a remote level is a ConfigurationError."""
    with pytest.raises(ConfigurationError, match="a RemoteLevel"):
        CacheManager(redis=5)


async def test_an_early_refresh_is_one_load_of_the_fleet(remote):
    """One process loads anew before the end of the ttl, the old value is served meanwhile, and all get the new one."""
    calls = Counter()
    functions = [
        profiles(CacheManager(redis=remote), calls, early_refresh=0.002, stale_while_revalidate=5) for _ in range(3)
    ]
    for load in functions:
        await load("ana")
        await load("ana")
    assert calls["ana"] == 1
    await asyncio.sleep(0.2)
    assert {(await load("ana")).age for load in functions} <= {41, 42}
    for _ in range(4000):
        if [(await load("ana")).age for load in functions] == [42, 42, 42]:
            break
        await asyncio.sleep(0.005)
    assert calls["ana"] == 2


async def test_an_early_refresh_that_an_invalidation_overtakes_is_not_stored(remote):
    """The value of a refresh that began before an invalidation is stored nowhere."""
    cache = CacheManager(redis=remote)
    gate, began, value = asyncio.Event(), asyncio.Event(), ["old"]
    gate.set()

    @cache.cached("x:{key}", ttl=60, early_refresh=0.001)
    async def load(key: int) -> str:
        seen = value[0]
        began.set()
        await gate.wait()
        return seen

    await load(1)
    await asyncio.sleep(0.1)
    gate.clear()
    began.clear()
    while not began.is_set():  # the reaper's thread says when it is due
        assert await load(1) == "old"
        await asyncio.sleep(0.005)
    value[0] = "new"
    await load.invalidate(1)
    gate.set()
    await until(lambda: not cache._engine.second.held and not cache._engine.second.sealed)
    assert await load(1) == "new"
    assert b"new" in remote.data["isp:1:x:1"]


async def test_a_stale_value_is_served_by_every_process_while_one_refreshes():
    """After the ttl the old value is returned at once, from whichever level, and one load of the fleet replaces it."""
    clock = ManualClock()
    remote, calls = MemoryLevel(clock), Counter()
    options = {"ttl": 10, "stale_while_revalidate": 60}
    one, other = (profiles(CacheManager(redis=remote, clock=clock), calls, **options) for _ in range(2))
    assert (await one("ana")).age == 41
    clock.advance(11)
    assert (await one("ana")).age == 41
    for _ in range(4000):
        if [(await load("ana")).age for load in (one, other)] == [42, 42]:
            break
        await asyncio.sleep(0.005)
    assert calls["ana"] == 2
    clock.advance(11)
    late = profiles(CacheManager(redis=remote, clock=clock), calls, **options)
    assert (await late("ana")).age in {42, 43}


async def test_a_stale_value_stands_in_for_a_failed_load_in_every_process():
    """A process that never had the value returns what the remote level still has when its load fails."""
    clock = ManualClock()
    remote = MemoryLevel(clock)

    def make(fails):
        @CacheManager(redis=remote, clock=clock).cached("x:{key}", ttl=10, stale_if_error=60)
        async def load(key: int) -> str:
            if fails:
                raise LookupError
            return "value"

        return load

    assert await make(fails=False)(1) == "value"
    clock.advance(11)
    failing = make(fails=True)
    assert await failing(1) == "value"
    assert failing.stats.stale_hits == 1
    clock.advance(70)
    with pytest.raises(LookupError):
        await failing(1)


async def test_a_smaller_bound_holds_at_once(remote):
    """A function that comes later with a smaller max_stale narrows the watch over the whole local level."""
    cache = CacheManager(redis=remote)
    await cache.invalidate("nothing")
    load = profiles(cache, Counter(), max_stale=0.05)
    await load("ana")
    await load("ana")
    remote.before = lambda _orders: asyncio.sleep(60)
    await asyncio.sleep(0.2)
    assert not cache.health().l1_trusted
    remote.before = None
