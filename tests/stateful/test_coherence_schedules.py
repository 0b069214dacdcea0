"""The coherence protocol under thousands of schedules: several managers, a bad network, made-up time, one seed each.

A failure names its seed; `COHERENCE_SEED=<seed> pytest tests/stateful/test_coherence_schedules.py` repeats it.
Each test tries seeds for a moment; with `-m soak` thousands of them, or as many as COHERENCE_SCHEDULES says.
"""

import asyncio
import logging
import os
import random
import sys
import time
from functools import partial

import pytest

from isp_perf.cache import CacheManager, _exchange, _health, _remote, _trust, _upkeep
from isp_perf.testing import ChaosLevel, History, MemoryLevel, check, simulate

SEED = os.environ.get("COHERENCE_SEED")
SCHEDULES = os.environ.get("COHERENCE_SCHEDULES")
SECONDS = 0.6
FEWEST = 2
BOUND = 0.1
NETWORKS = {
    "fast": {},
    "slow": {"slowest": 0.03},
    "late": {"late": 0.1},
    "cut": {"cut": 0.03, "late": 0.03},
    "silent": {"silent": 0.02, "late": 0.03},
    "repeated": {"repeat": 0.3, "late": 0.03},
    "everything": {"cut": 0.01, "silent": 0.01, "late": 0.05, "repeat": 0.1},
}


@pytest.fixture(autouse=True)
def quiet():
    """Outages are what these tests are made of; nobody needs a line for each."""
    logging.getLogger("isp_perf.cache").setLevel("ERROR")
    yield
    logging.getLogger("isp_perf.cache").setLevel("NOTSET")


@pytest.fixture
def simulated(monkeypatch):
    """Runs a coroutine function with a clock of made-up time, which the cache has too, and with draws of a seed."""

    def run(seed, main):
        chance = random.Random(seed)

        async def patched(clock):
            for module in (_trust, _remote, _upkeep, _health):
                monkeypatch.setattr(module, "monotonic", clock)
            for module in (_upkeep, _exchange):
                monkeypatch.setattr(module, "_draw", chance.random)
            return await main(clock, chance)

        return simulate(patched)

    return run


def slice_or(schedules):
    """Run a test for a moment, and as a soak with that many seeds."""
    many = pytest.param(int(SCHEDULES or schedules), marks=[pytest.mark.soak, pytest.mark.timeout(0)], id="many")
    return pytest.mark.parametrize("schedules", [pytest.param(None, id="slice"), many])


def explore(run, scenario, schedules):
    """Try that many seeds, or some for a while, or the one that is asked for; return how many."""
    seeds = range(int(SEED), int(SEED) + 1) if SEED else range(schedules or 1 << 30)
    started, tried = time.monotonic(), 0
    for tried, seed in enumerate(seeds, 1):
        try:
            run(seed, scenario)
        except BaseException as error:
            error.add_note(f"COHERENCE_SEED={seed}")
            raise
        if schedules is None and tried >= FEWEST and time.monotonic() - started > SECONDS:
            break
    sys.stderr.write(f"{tried} schedules in {time.monotonic() - started:.1f} s\n")
    return tried


class Fleet:
    """Managers of several processes, one truth, and what they saw."""

    def __init__(self, clock, chance, *, processes, network):
        self.clock, self.chance = clock, chance
        self.server = MemoryLevel(clock)
        self.levels = [ChaosLevel(self.server, seed=chance.randrange(1 << 30), **network) for _ in range(processes)]
        self.managers = [CacheManager(f"p{n}", redis=level) for n, level in enumerate(self.levels)]
        self.truth = {}
        self.history = History(clock=clock)
        self.loads = 0
        self.functions = [self.decorated(manager) for manager in self.managers]
        self.tasks = [asyncio.create_task(self.reap(manager)) for manager in self.managers]

    async def reap(self, manager):
        """Withdraw the local level when its proof is old, as the reaper's thread does in real time."""
        while True:
            trust = manager._engine.second.trust
            if trust.connected and trust._lost_at is None and self.clock() - trust.alive >= trust.bound:
                trust._due([])
            await asyncio.sleep(0.005)

    def decorated(self, manager):
        """Return the cached functions of one process, with and without a local level."""

        @manager.cached("near:{key}", ttl=300)
        async def near(key: str) -> str:
            return await self.load(key)

        @manager.cached("strict:{key}", ttl=300, max_stale=0)
        async def strict(key: str) -> str:
            return await self.load(key)

        return {"near": near, "strict": strict}

    async def load(self, key):
        """Read the truth at one moment of a time that is drawn."""
        self.loads += 1
        await asyncio.sleep(self.chance.random() * 0.01)
        value = self.value(key)
        await asyncio.sleep(self.chance.choice([0, 0.001, 0.02, 0.1]))
        return value

    def value(self, key):
        return f"{key}={self.truth.get(key, 0)}"

    async def read(self, session, process, key):
        """Read once, and take note."""
        with session.reading(key) as read:
            read.value = await self.functions[process][key.partition(":")[0]](key)
        return read.value

    async def write(self, session, process, key):
        """Write once, tell, and take note of when that was known to be delivered."""
        function = self.functions[process][key.partition(":")[0]]
        with session.writing(key, None) as step:
            if self.chance.random() < 0.4:
                async with self.managers[process].writing(function.key(key)):
                    await self.commit(step, key)
            else:
                await self.commit(step, key)
            receipt = await function.invalidate(key)
            if receipt.delivered:
                step.acknowledged()
        self.tasks.append(asyncio.create_task(self.noted(receipt, len(self.history.writes) - 1)))

    async def commit(self, step, key):
        """Change the truth."""
        await asyncio.sleep(self.chance.random() * 0.005)
        self.truth[key] = version = self.truth.get(key, 0) + 1
        step.committed(version)

    async def noted(self, receipt, place):
        """Take note of when a queued invalidation was delivered after all."""
        if receipt.queued:
            await receipt.wait(1000)
            self.history.writes[place] = self.history.writes[place]._replace(acknowledged=self.clock())

    def verdict(self, kind, bound, **options):
        """Judge the keys of one kind."""
        history = History({key: f"{key}=0" for key in {record.key for record in self.history.reads}})
        history.reads = [record for record in self.history.reads if record.key.startswith(kind)]
        history.writes = [
            record._replace(value=f"{record.key}={record.version}")
            for record in self.history.writes
            if record.key.startswith(kind) and record.version
        ]
        return check(history, max_stale=bound, **options)

    async def close(self):
        """End everything."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for manager in self.managers:
            await manager.aclose()


async def history_of(network, clock, chance):
    """Let three processes read and write for a second, heal everything, and judge."""
    fleet = Fleet(clock, chance, processes=3, network=network)
    keys = ["near:a", "strict:a"]
    end = clock() + 1.0

    async def reader(process, name):
        session = fleet.history.session(name)
        while clock() < end:
            await fleet.read(session, process, chance.choice(keys))
            await asyncio.sleep(chance.choice([0, 0.001, 0.01, 0.05]))

    async def writer(process, name):
        session = fleet.history.session(name)
        while clock() < end:
            key = chance.choice(keys)
            await fleet.write(session, process, key)
            await fleet.read(session, process, key)
            await asyncio.sleep(chance.random() * 0.1)

    await asyncio.gather(
        *(reader(process, f"p{process}/r{number}") for process in range(3) for number in range(2)),
        *(writer(process, f"p{process}/w") for process in (0, 1)),
    )
    for level in fleet.levels:
        level.calm = True
    await asyncio.sleep(3)
    settled = clock()
    session = fleet.history.session("last")
    for process in range(3):
        for key in keys:
            await fleet.read(session, process, key)
    await fleet.close()
    # Past the remote level, a reader may join a load of its process: it is older than the write by that load at most.
    sick = set(network) & {"cut", "silent", "late", "slowest"}
    near = fleet.verdict("near", 0.4 if sick else BOUND, converged_after=settled)
    strict = fleet.verdict("strict", 0.4 if sick else 0, converged_after=settled)
    assert near.ok, str(near)
    assert strict.ok, str(strict)


async def slow_load_against_write(clock, chance):
    """A slow load meets an invalidation at some moment of it; whoever asks after it gets what was written."""
    fleet = Fleet(clock, chance, processes=2, network={"slowest": chance.choice([0.0001, 0.005])})
    for task in fleet.tasks:
        task.cancel()
    loader, writer, reader = (chance.randrange(2) for _ in range(3))
    key = chance.choice(["near:a", "strict:a"])
    kind = key.partition(":")[0]
    slow = asyncio.create_task(fleet.functions[loader][kind](key))
    await asyncio.sleep(chance.random() * 0.05)
    fleet.truth[key] = 1
    receipt = await fleet.functions[writer][kind].invalidate(key)
    assert receipt.delivered
    if kind == "near" and reader != writer:
        await asyncio.sleep(0.006)  # the news is on its way for as long
    assert await fleet.functions[reader][kind](key) == f"{key}=1", "joined or stored"
    await slow
    await asyncio.sleep(0.02)
    for functions in fleet.functions:
        assert await functions[kind](key) == f"{key}=1", "stored"
    await fleet.close()


@slice_or(10_000)
def test_a_slow_load_is_never_stored_nor_joined_after_an_invalidation(simulated, schedules):
    """Same process and another one, with and without a local level, at any moment of the load."""
    assert explore(simulated, slow_load_against_write, schedules)


async def holder_crashes(clock, chance):
    """The process that holds the lease dies; another one loads within 2 s of it."""
    fleet = Fleet(clock, chance, processes=2, network={})
    doomed = asyncio.create_task(fleet.functions[0]["strict"]("strict:a"))
    await asyncio.sleep(0.003 + chance.random() * 0.004)
    fleet.levels[0].crash()
    doomed.cancel()
    started = clock()
    assert await fleet.functions[1]["strict"]("strict:a") == "strict:a=0"
    assert clock() - started < 2.3  # 2 s, and the load
    await fleet.close()


@slice_or(1_000)
def test_a_crashed_holder_of_a_lease_is_replaced(simulated, schedules):
    """Nobody waits longer than the lease for a load that will never end."""
    assert explore(simulated, holder_crashes, schedules)


@slice_or(200)
@pytest.mark.parametrize("network", NETWORKS)
def test_random_histories_on_a_simulated_network(simulated, network, schedules):
    """Whatever the network does, no read breaks a promise, nobody gets an error, nothing hangs, and all converge."""
    assert explore(simulated, partial(history_of, NETWORKS[network]), schedules)


async def until(condition):
    """Wait until ``condition`` holds, for 20 s at most."""
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


async def test_who_was_served_past_redis_reads_nothing_older_from_it():
    """A load past the remote level outlives the outage; what another process stored meanwhile is not believed here."""
    server = MemoryLevel()
    here, there = (ChaosLevel(server, seed=0, slowest=0) for _ in range(2))
    truth, gates = {"value": 1}, {"here": asyncio.Event(), "there": asyncio.Event()}
    for gate in gates.values():
        gate.set()

    def made(name, level):
        cache = CacheManager(redis=level)

        @cache.cached("k:{x}", ttl=60)
        async def read(x: int) -> int:
            await gates[name].wait()
            return truth["value"]

        return cache, read

    (cache, read), (other_cache, other) = made("here", here), made("there", there)
    assert await other(0) == await read(0) == 1
    gates["here"].clear()
    here.partition()
    here.cut()
    past = asyncio.create_task(read(1))
    await until(lambda: cache.health().l2 != "up")
    here.heal()
    await until(lambda: cache.health().l2 == "up" and not cache.health().journal)
    assert await other(1) == 1
    truth["value"] = 2  # committed, and not yet invalidated
    gates["here"].set()
    assert await past == 2
    assert await read(1) == 2, "went back"
    for manager in (cache, other_cache):
        await manager.aclose()
