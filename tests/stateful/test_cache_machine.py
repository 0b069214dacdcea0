"""Random operations against a dict and a clock, in both colours."""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from isp_perf.cache import CacheManager
from isp_perf.testing import ManualClock

KEYS = st.integers(0, 2)
TTL, STALE = 10.0, 20.0


class CacheMachine(RuleBasedStateMachine):
    """The cache against a model: key -> (value, end of ttl, stale seconds), without bounds on room."""

    def __init__(self):
        super().__init__()
        self.clock = ManualClock()
        self.cache = CacheManager(clock=self.clock)
        self.failing = self.hanging = False
        self.loads = 0
        self.model = {}
        self.retry = {}
        self.load = self.cache.cached("n:{x}", ttl=TTL, stale_if_error=STALE, tags=("one:{x}", "all"))(self.loader())

    def loader(self):
        """Return the function to cache."""

        def load(x: int):
            if self.hanging:
                raise KeyboardInterrupt
            return self.loaded()

        return load

    def loaded(self):
        self.loads += 1
        if self.failing:
            raise ConnectionError
        return self.loads

    def do(self, operation, *values, **options):
        """Run an operation of the function."""
        return operation(*values, **options)

    def manage(self, name, *values, **options):
        """Run an operation of the manager."""
        return getattr(self.cache.sync, name)(*values, **options)

    def teardown(self):
        """Leave nothing behind."""

    def fresh(self, x):
        return x in self.model and self.clock() < self.model[x][1]

    def stale(self, x):
        return x in self.model and self.clock() < self.model[x][1] + self.model[x][2]

    @rule(x=KEYS)
    def read(self, x):
        """A fresh value is returned; otherwise the loader decides, and a stale value stands in for its error."""
        before = self.loads
        try:
            value = self.do(self.load, x)
        except ConnectionError:
            assert self.failing
            assert not self.stale(x)
            self.model.pop(x, None)
            return
        if self.fresh(x):
            assert (value, self.loads) == (self.model[x][0], before)
        elif self.loads == before:
            assert self.clock() < self.retry[x]
            assert value == self.model[x][0]
        elif self.failing:
            assert self.stale(x)
            assert value == self.model[x][0]
            self.retry[x] = self.clock() + 1
        else:
            assert value == self.loads
            self.model[x] = (value, self.clock() + TTL, STALE)
            self.retry.pop(x, None)

    @rule(x=KEYS, value=st.text(max_size=2))
    def put(self, x, value):
        """A put value is what is read next."""
        self.do(self.load.put, value, x)
        self.model[x] = (value, self.clock() + TTL, STALE)
        self.retry.pop(x, None)

    @rule(x=KEYS, value=st.text(max_size=2))
    def set_by_key(self, x, value):
        """A value set under the key of a call is the value of the call, by the function's rules."""
        self.manage("set", self.load.key(x), value, ttl=TTL)
        self.model[x] = (value, self.clock() + TTL, STALE)
        self.retry.pop(x, None)

    @rule(x=KEYS)
    def peek(self, x):
        """A look returns fresh values only, and loads nothing."""
        before = self.loads
        expected = self.model[x][0] if self.fresh(x) else "absent"
        assert self.do(self.load.peek, x, default="absent") == expected
        assert self.manage("get", self.load.key(x), "absent") == expected
        assert self.loads == before

    @rule(x=KEYS)
    def refresh(self, x):
        """A refresh loads whatever is cached; its error leaves what there was, to stand in or not."""
        before = self.loads
        try:
            value = self.do(self.load.refresh, x)
        except ConnectionError:
            assert self.failing
            return
        if self.failing:
            assert self.stale(x)
            assert value == self.model[x][0]
            self.retry[x] = self.clock() + 1
            return
        assert value == self.loads == before + 1
        self.model[x] = (value, self.clock() + TTL, STALE)
        self.retry.pop(x, None)

    @rule(x=KEYS)
    def cancel(self, x):
        """A caller that is cancelled while it loads leaves everything as it was."""
        before = self.loads
        self.hanging = True
        try:
            value = self.interrupted(x)
            assert value == self.model[x][0]
            assert self.fresh(x) or self.clock() < self.retry.get(x, 0)
        except KeyboardInterrupt:
            assert not self.fresh(x)
        finally:
            self.hanging = False
        assert self.loads == before

    def interrupted(self, x):
        """Call the function, whose loader does not come back; raise KeyboardInterrupt if it was asked."""
        return self.load(x)

    @rule(x=KEYS, how=st.sampled_from(["function", "key", "tag", "pattern"]))
    def invalidate(self, x, how):
        """Whatever invalidates a value, it is never returned again, not even as a stale one."""
        if how == "function":
            self.do(self.load.invalidate, x)
        elif how == "key":
            self.manage("invalidate", f"n:{x}")
        elif how == "tag":
            self.manage("invalidate_tags", f"one:{x}")
        else:
            self.manage("invalidate_pattern", f"n:[{x}]")
        self.model.pop(x, None)
        self.retry.pop(x, None)

    @rule()
    def invalidate_all_by_tag(self):
        """A tag that several values share removes them all."""
        self.manage("invalidate_tags", "all")
        self.model.clear()
        self.retry.clear()

    @rule()
    def clear(self):
        """After clear there is nothing."""
        self.manage("clear")
        self.model.clear()
        self.retry.clear()

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 10.0, 25.0]))
    def wait(self, seconds):
        """Time passes."""
        self.clock.advance(seconds)

    @rule()
    def fail(self):
        """The loader begins to fail."""
        self.failing = True

    @precondition(lambda self: self.failing)
    @rule()
    def heal(self):
        """The loader works again."""
        self.failing = False

    @invariant()
    def nothing_is_left_over(self):
        """No flight stays, and entries, queue, index and tags agree."""
        local = self.cache._engine.local
        site = next(iter(self.cache._sites))
        stores = [self.cache._keys.store, *site.stores()]
        assert not any(store.flights for store in stores)
        entries = {id(entry) for store in stores for place in (store.hot, store.cold) for entry in place.values()}
        assert entries == {id(entry) for entry in local.living_locked()}
        assert len(entries) == len(local)
        if local.index is not None:
            assert {id(entry) for entry in local.index.values()} == entries
        assert {id(entry) for others in local.tagged.values() for entry in others} <= entries


class TasksMachine(CacheMachine):
    """The same in a loop, with a coroutine function."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        super().__init__()

    def loader(self):
        """Return the coroutine function to cache."""

        async def load(x: int):
            await asyncio.sleep(60 if self.hanging else 0)
            return self.loaded()

        return load

    def do(self, operation, *values, **options):
        """Run an operation of the function."""
        return self.loop.run_until_complete(operation(*values, **options))

    def manage(self, name, *values, **options):
        """Run an operation of the manager."""
        return self.loop.run_until_complete(getattr(self.cache, name)(*values, **options))

    def interrupted(self, x):
        """Cancel a call that hangs."""

        async def cancelled():
            task = asyncio.create_task(self.load(x))
            for _ in range(3):
                await asyncio.sleep(0)
            task.cancel()
            return (await asyncio.gather(task, return_exceptions=True))[0]

        outcome = self.loop.run_until_complete(cancelled())
        if isinstance(outcome, asyncio.CancelledError):
            raise KeyboardInterrupt
        return outcome

    def teardown(self):
        """Close the loop."""
        self.loop.close()


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TasksMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestCacheMachine = CacheMachine.TestCase
TestTasksMachine = TasksMachine.TestCase
