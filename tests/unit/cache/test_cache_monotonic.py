"""Reads of one process never go back, whichever way the value came past the remote level."""

import asyncio
from time import monotonic

import pytest

from isp_perf.cache import CacheManager, _upkeep
from isp_perf.errors import NotSentError
from isp_perf.testing import MemoryLevel
from isp_perf.typing import Drop

WAIT = 20.0


class Process:
    """One process: a cached reader of the shared truth whose next load can be held before or after it has read."""

    def __init__(self, level, truth, **policy):
        self.truth, self.loads = truth, 0
        self.gates, self.entered = {"before": [], "after": []}, asyncio.Queue()
        self.cache = CacheManager(redis=level)

        @self.cache.cached("x:{key}", **{"ttl": 60, **policy})
        async def read(key: str) -> int:
            self.loads += 1
            await self.gate("before")
            value = self.truth[key]
            await self.gate("after")
            return value

        self.read = read

    @property
    def second(self):
        return self.cache._engine.second

    async def gate(self, where):
        """Wait if a load is to be held here."""
        if self.gates[where]:
            gate = self.gates[where].pop(0)
            self.entered.put_nowait(where)
            await gate.wait()

    async def held(self, where):
        """Begin a read, hold its load, and return the reading task and what lets it go on."""
        gate = asyncio.Event()
        self.gates[where].append(gate)
        task = asyncio.create_task(self.read("k"))
        await asyncio.wait_for(self.entered.get(), WAIT)
        return task, gate

    async def let(self, task, gate):
        """Let a held load go on and return what its reader got."""
        gate.set()
        return await asyncio.wait_for(task, WAIT)


class World:
    """A truth, a remote level that can be told to answer nobody, and processes."""

    def __init__(self):
        self.truth, self.level, self.processes = {"k": 1, "other": 1}, MemoryLevel(), []

    def process(self, **policy):
        self.processes.append(Process(self.level, self.truth, **policy))
        return self.processes[-1]

    def silence(self):
        """Answer nobody, without ending a connection."""

        async def nobody(_orders):
            raise NotSentError("nobody answers")

        self.level.before = nobody

    async def heal(self):
        """Answer again, and wait until everybody believes it."""
        self.level.before = None
        for _ in range(int(WAIT / 0.005)):
            if all(process.cache.health().l2 == "up" for process in self.processes):
                return
            await asyncio.sleep(0.005)
        raise TimeoutError


@pytest.fixture
async def world():
    """A world whose caches are closed at the end."""
    made = World()
    yield made
    made.level.before = None
    for process in made.processes:
        await process.cache.aclose()


def suspend(process):
    """Withdraw the local level as the reaper does when no proof came in time."""
    trust = process.second.trust
    trust.alive -= trust.bound
    trust._due([])
    assert not process.cache.health().l1_trusted


async def test_a_local_value_that_was_withdrawn_does_not_come_back_older(world):
    """Who was served past the level while its local value was withdrawn never gets that older value again."""
    process = world.process()
    assert await process.read("k") == await process.read("k") == 1
    suspend(process)
    world.silence()
    world.truth["k"] = 2  # committed; who committed cannot tell
    assert await process.read("k") == 2
    with process.cache._engine.local.lock:
        process.second.trust.proved_locked(monotonic())
    assert process.cache.health().l1_trusted
    assert await process.read("k") == 2


async def test_a_load_past_the_level_ends_the_loads_that_may_be_older(world):
    """A load that was overtaken by a later reader's is nobody's to join afterwards."""
    process = world.process()
    early, early_gate = await process.held("before")  # its question has left: nobody joins it
    world.silence()
    await process.read("other")
    late, late_gate = await process.held("after")  # past the level, has read 1; may be joined
    world.truth["k"] = 2
    assert await process.let(early, early_gate) == 2
    again = asyncio.create_task(process.read("k"))
    await asyncio.sleep(0)
    assert await process.let(late, late_gate) == 1
    assert await asyncio.wait_for(again, WAIT) == 2


async def overtaken(process, other, truth):
    """Have ``process`` return 2 from a load whose lease an invalidation took, while ``other`` stored 1 meanwhile."""
    task, gate = await process.held("before")
    await other.read.invalidate("k")
    assert await other.read("k") == 1
    truth["k"] = 2  # committed, not yet invalidated
    assert await process.let(task, gate) == 2


async def test_a_refused_fill_is_not_followed_by_what_another_process_stored_before(world):
    """A reader whose load lost its lease got 2: what stands in the level may be older, and is loaded again."""
    process, other = world.process(), world.process()
    await overtaken(process, other, world.truth)
    assert await process.read("k") == 2
    assert await other.read("k") == 2, "replaced for everybody"
    assert (process.loads, other.loads) == (2, 1)


async def test_a_refused_fill_is_believed_if_the_level_says_the_same(world):
    """A value equal to what was returned is no reason for another load."""
    process, other = world.process(), world.process()
    task, gate = await process.held("before")
    await other.read.invalidate("k")
    assert await other.read("k") == 1
    assert await process.let(task, gate) == 1
    assert await process.read("k") == 1
    assert (process.loads, other.loads) == (1, 1)


async def test_looking_without_loading_finds_nothing_older(world):
    """``peek``, ``get`` and ``get_many`` miss what may be older than what was returned."""
    process, other = world.process(), world.process()
    await overtaken(process, other, world.truth)
    key = process.read.key("k")
    assert await process.read.peek("k") is None
    assert await process.cache.get(key) is None
    assert await process.cache.get_many([key]) == {}
    assert await other.cache.get(key) == 1


async def test_what_is_put_is_believed_again(world):
    """A value that this process stores on purpose is newer than what it returned."""
    process, other = world.process(), world.process()
    await overtaken(process, other, world.truth)
    await process.cache.set(process.read.key("k"), 3)
    assert await process.read("k") == 3


async def test_a_read_beside_a_write_intent_is_not_followed_by_an_older_one(world):
    """A load that outlives the intent returned 2: what another process loaded meanwhile may be older."""
    process, other = world.process(), world.process()
    await process.read("k")
    async with other.cache.writing(other.read.key("k")):
        task, gate = await process.held("before")
    assert await other.read("k") == 1
    world.truth["k"] = 2
    assert await process.let(task, gate) == 2
    assert await process.read("k") == 2


async def test_a_read_within_a_write_intent_costs_nobody_a_load(world):
    """As long as the intent stands nobody can have loaded what is older: one load for all after it."""
    process, other = world.process(), world.process()
    await process.read("k")
    async with other.cache.writing(other.read.key("k")):
        assert await process.read("k") == 1
        world.truth["k"] = 2
    loads = process.loads
    assert await other.read("k") == await process.read("k") == 2
    assert process.loads == loads


async def test_a_read_past_the_lease_of_another_process_is_not_followed_by_an_older_one(world):
    """With ``single_flight="process"`` nobody waits for the other's load, and nobody goes back to it either."""
    process, other = world.process(single_flight="process"), world.process()
    task, gate = await other.held("after")  # has read 1
    world.truth["k"] = 2
    assert await process.read("k") == 2
    assert await other.let(task, gate) == 1
    assert await process.read("k") == 2


async def test_a_lease_of_our_own_from_before_is_neither_joined_nor_kept(world):
    """A later load of this process that read 1 is not joined after 2 was returned, and its value is not kept here."""
    process, other = world.process(), world.process()
    first, first_gate = await process.held("before")
    await other.read.invalidate("k")
    second, second_gate = await process.held("after")  # holds the lease, has read 1
    world.truth["k"] = 2
    assert await process.let(first, first_gate) == 2
    third = asyncio.create_task(process.read("k"))
    assert await asyncio.wait_for(third, WAIT) == 2
    assert await process.let(second, second_gate) == 1
    assert await process.read("k") == 2


async def test_of_two_readers_that_got_different_values_neither_is_taken_for_the_newer_one(world):
    """The level's value equals what the slower of two readers got; the other one got a newer one, and keeps it."""
    process, other = world.process(single_flight="process"), world.process()
    holder, holder_gate = await other.held("after")  # has read 1
    slow, slow_gate = await process.held("after")  # has read 1
    world.truth["k"] = 2
    assert await process.read("k") == 2
    assert await process.let(slow, slow_gate) == 1
    assert await other.let(holder, holder_gate) == 1
    assert await process.read("k") == 2


async def test_doubts_leave_nothing_behind(world):
    """Once the key was loaded again there is no doubt, no mark and no lease left."""
    process, other = world.process(), world.process()
    await overtaken(process, other, world.truth)
    assert len(process.second.doubts) == 1
    assert await process.read("k") == 2
    assert len(process.second.doubts) == len(process.second.held) == len(process.second.sealed) == 0
    await process.read.invalidate("k")
    assert len(process.second.marks) == 0


async def test_an_outage_in_the_middle_of_a_read_beside_an_intent_is_no_way_back(world):
    """If nobody can tell what stands there when the load ends, the key is removed before it is believed."""
    process, other = world.process(), world.process()
    await process.read("k")
    async with other.cache.writing(other.read.key("k")):
        task, gate = await process.held("before")
    assert await other.read("k") == 1
    world.silence()
    world.truth["k"] = 2
    assert await process.let(task, gate) == 2
    await world.heal()
    assert await process.read("k") == 2


async def test_what_is_left_of_the_journal_is_told_before_it_matters(world, monkeypatch):
    """A tag that could not be told before the level is used again is told by the first read that depends on it."""
    monkeypatch.setattr(_upkeep, "_MOST_TRIPS", 0)
    process, other = (world.process(tags=["numbers"]) for _ in range(2))
    assert await process.read("k") == await other.read("k") == 1
    world.silence()
    world.truth["k"] = 2
    process.second.down("timeout")
    assert (await process.cache.invalidate_tags("numbers")).queued
    told = asyncio.Event()

    async def slow_upkeep(orders):
        if asyncio.current_task() is process.second._home._task and any(isinstance(order, Drop) for order in orders):
            await told.wait()

    world.level.before = slow_upkeep
    for _ in range(int(WAIT / 0.005)):
        if process.cache.health().l2 == "up":
            break
        await asyncio.sleep(0.005)
    assert process.second.journal.is_past(process.second.tag_name("numbers"))
    assert await process.cache.get(process.read.key("k")) is None
    assert await process.read("k") == 2
    told.set()
