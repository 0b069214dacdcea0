"""Random operations against a dict and a clock."""

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
        self.failing = False
        self.loads = 0
        self.model = {}
        self.retry = {}

        @self.cache.cached("n:{x}", ttl=TTL, stale_if_error=STALE, tags=("parity:{x}",))
        def load(x: int):
            self.loads += 1
            if self.failing:
                raise ConnectionError
            return self.loads

        self.load = load

    def fresh(self, x):
        return x in self.model and self.clock() < self.model[x][1]

    def stale(self, x):
        return x in self.model and self.clock() < self.model[x][1] + self.model[x][2]

    @rule(x=KEYS)
    def read(self, x):
        """A fresh value is returned; otherwise the loader decides, and a stale value stands in for its error."""
        before = self.loads
        try:
            value = self.load(x)
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
        self.load.put(value, x)
        self.model[x] = (value, self.clock() + TTL, STALE)
        self.retry.pop(x, None)

    @rule(x=KEYS, value=st.text(max_size=2))
    def set_by_key(self, x, value):
        """A value set under the key of a call is the value of the call, by the manager's rules: no tags, no stale."""
        self.cache.sync.set(self.load.key(x), value, ttl=TTL)
        self.model[x] = (value, self.clock() + TTL, 0.0)
        self.retry.pop(x, None)

    @rule(x=KEYS)
    def peek(self, x):
        """A look returns fresh values only, and loads nothing."""
        before = self.loads
        assert self.load.peek(x, default="absent") == (self.model[x][0] if self.fresh(x) else "absent")
        assert self.cache.sync.get(self.load.key(x), "absent") == (self.model[x][0] if self.fresh(x) else "absent")
        assert self.loads == before

    @rule(x=KEYS, how=st.sampled_from(["function", "key", "tag", "pattern"]))
    def invalidate(self, x, how):
        """Whatever invalidates a value, it is never returned again, not even as a stale one."""
        if how == "function":
            self.load.invalidate(x)
        elif how == "key":
            self.cache.sync.invalidate(f"n:{x}")
        elif how == "tag":
            self.cache.sync.invalidate_tags(f"parity:{x}")
        else:
            self.cache.sync.invalidate_pattern(f"n:[{x}]")
        if how != "tag" or (x in self.model and self.model[x][2]):
            self.model.pop(x, None)
            self.retry.pop(x, None)

    @rule()
    def clear(self):
        """After clear there is nothing."""
        self.cache.sync.clear()
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


CacheMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestCacheMachine = CacheMachine.TestCase
