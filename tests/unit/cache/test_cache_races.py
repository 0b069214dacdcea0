"""Every pair of operations in every order of their steps, beside a third caller.

A load has two steps, its beginning and its end; everything else has one. The scheduler takes one step of one actor at a
time and lets everything run until nothing moves, so each order is exact, and a failure names it. The oracle: a version
that only grows. Whoever begins after a set or an invalidation gets no version from before it.
"""

import asyncio
import threading
import time
from itertools import combinations_with_replacement

import pytest

from isp_perf.cache import CacheManager
from isp_perf.testing import ManualClock

TTL = 10.0
STEPS = {"get": 2, "load": 2, "set": 1, "invalidate": 1, "expire": 1, "cancel": 1}
PAIRS = list(combinations_with_replacement(STEPS, 2))
POLICIES = {"short way": {}, "long way": {"tags": ("all",)}, "staged": {"stale_if_error": 5.0}}


def orders(counts):
    """Return every order in which actors with so many steps each can take them, as lists of actor numbers."""
    if not any(counts):
        return [[]]
    found = []
    for actor, left in enumerate(counts):
        if left:
            rest = [*counts[:actor], left - 1, *counts[actor + 1 :]]
            found += [[actor, *order] for order in orders(rest)]
    return found


class World:
    """A cache over a version that grows, and what was promised to whom."""

    def __init__(self, policy, *, filled, manual):
        self.clock = ManualClock()
        self.cache = CacheManager(clock=self.clock) if manual else CacheManager()
        self.version = self.floor = self.loads = 0
        self.gates = []
        self.calls = []
        self.policy = {"ttl": TTL, **policy}
        self.filled = filled

    def check_end(self):
        """Nothing is left over, whatever happened."""
        local = self.cache._engine.local
        stores = [self.cache._keys.store, *(store for site in self.cache._sites for store in site.stores())]
        assert not any(store.flights for store in stores)
        entries = {id(entry) for store in stores for entry in store.entries()}
        assert entries == {id(entry) for entry in local.living_locked()}
        assert len(entries) == len(local)


class Tasks(World):
    """Actors are tasks."""

    async def begin(self):
        async def load(x: int):
            self.loads += 1
            seen, gate = self.version, asyncio.Event()
            self.gates.append(gate)
            await gate.wait()
            return seen

        self.load = self.cache.cached("k:{x}", **self.policy)(load)
        if self.filled:
            await self.load.put(0, 1)

    async def step(self, name, part):
        if part:
            self.release()
        elif name in {"get", "load"}:
            call = self.load(1) if name == "get" else self.load.refresh(1)
            self.calls.append((asyncio.create_task(call), self.floor))
        elif name == "cancel":
            for task, _ in self.calls[:1]:
                task.cancel()
        else:
            await self.change(name)
        for _ in range(6):
            await asyncio.sleep(0)

    async def change(self, name):
        if name == "expire":
            self.clock.advance(TTL + 1)
            return
        self.version += 1
        await (self.load.put(self.version, 1) if name == "set" else self.load.invalidate(1))
        self.floor = self.version

    def release(self):
        if self.gates:
            self.gates.pop(0).set()

    async def end(self):
        while not all(task.done() for task, _ in self.calls):
            self.release()
            await asyncio.sleep(0)
        for task, floor in self.calls:
            assert task.cancelled() or floor <= task.result() <= self.version
        assert sum(task.cancelled() for task, _ in self.calls) <= 1
        last = asyncio.create_task(self.load(1))
        while not last.done():
            self.release()
            await asyncio.sleep(0)
        assert self.floor <= last.result() <= self.version
        self.check_end()


async def run_tasks(names, order, world):
    await world.begin()
    taken = [0] * len(names)
    for actor in order:
        await world.step(names[actor], taken[actor])
        taken[actor] += 1
    await world.end()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("filled", [False, True])
async def test_every_order_of_every_pair_of_tasks_beside_a_third_caller(policy, filled):
    """No caller gets a value from before a change that it began after, and nothing is left over."""
    async with asyncio.timeout(100):
        for pair in PAIRS:
            names = (*pair, "get")
            for order in orders([STEPS[name] for name in names]):
                world = Tasks(POLICIES[policy], filled=filled, manual="expire" in names or policy == "staged")
                try:
                    await run_tasks(names, order, world)
                except AssertionError as error:
                    error.add_note(f"{names} in the order {order}")
                    raise


async def test_callers_of_one_key_share_one_load_in_every_order():
    """Two or three gets that overlap cause exactly one load; those after the end of the first cause none."""
    for order in orders([2, 2, 2]):
        world = Tasks({}, filled=False, manual=False)
        await run_tasks(("get", "get", "get"), order, world)
        assert world.loads == 1, order


class Threads(World):
    """Actors are threads; the loader is interrupted instead of cancelled."""

    def begin(self):
        def load(x: int):
            self.loads += 1
            seen, gate = self.version, threading.Event()
            gate.interrupted = False
            self.gates.append(gate)
            gate.wait(10)
            if gate.interrupted:
                raise KeyboardInterrupt
            return seen

        self.load = self.cache.cached("k:{x}", **self.policy)(load)
        if self.filled:
            self.load.put(0, 1)

    def step(self, name, part):
        if part:
            self.release()
        elif name in {"get", "load"}:
            self.start(self.load if name == "get" else self.load.refresh)
        elif name == "cancel":
            self.release(interrupted=True)
        elif name == "expire":
            self.clock.advance(TTL + 1)
        else:
            self.version += 1
            if name == "set":
                self.load.put(self.version, 1)
            else:
                self.load.invalidate(1)
            self.floor = self.version
        self.settle()

    def start(self, call):
        outcome = []

        def run():
            try:
                outcome.append(call(1))
            except KeyboardInterrupt as error:
                outcome.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self.calls.append((thread, outcome, self.floor))
        thread.start()

    def release(self, *, interrupted=False):
        if self.gates:
            gate = self.gates.pop(0)
            gate.interrupted = interrupted
            gate.set()

    def settle(self):
        """Wait until every living thread is in the loader or waits for one that is."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            living = sum(thread.is_alive() for thread, _, _ in self.calls)
            waiting = sum(
                len(flight.waiters) for site in self.cache._sites for flight in list(site.store.flights.values())
            )
            if living <= len(self.gates) + waiting + self.detached():
                return
            time.sleep(0.0002)
        raise AssertionError("a caller is lost")

    def detached(self):
        """Return how many waiters of flights that were detached there may be."""
        return sum(thread.is_alive() for thread, _, floor in self.calls if floor < self.floor)

    def end(self):
        deadline = time.monotonic() + 10
        while any(thread.is_alive() for thread, _, _ in self.calls):
            assert time.monotonic() < deadline
            self.release()
            time.sleep(0.0002)
        for _, (value,), floor in self.calls:
            assert isinstance(value, KeyboardInterrupt) or floor <= value <= self.version
        self.start(self.load)
        while self.calls[-1][0].is_alive():
            self.release()
            time.sleep(0.0002)
        assert self.floor <= self.calls[-1][1][0] <= self.version
        self.check_end()


@pytest.mark.parametrize("policy", ["short way", "long way"])
def test_every_order_of_every_pair_of_threads(policy):
    """The same holds for threads; an interrupted loader concerns its own caller only."""
    for pair in PAIRS:
        for order in orders([STEPS[name] for name in pair]):
            world = Threads(POLICIES[policy], filled=False, manual="expire" in pair)
            world.begin()
            taken = [0, 0]
            try:
                for actor in order:
                    world.step(pair[actor], taken[actor])
                    taken[actor] += 1
                world.end()
            except AssertionError as error:
                error.add_note(f"{pair} in the order {order}")
                raise
