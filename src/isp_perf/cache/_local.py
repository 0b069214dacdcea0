"""The local level (L1): what may be returned now, how long, and what leaves for want of room.

Invariant: a store's ``hot`` dict holds only values that may be returned now, because the generated wrapper returns them
without another question: no clock, no lock. Whatever needs a look first is ``cold`` and found by the slow path.
"""

from collections.abc import Hashable
from time import monotonic
from typing import Any, Final, NamedTuple

from isp_perf._core.departures import DISTRUSTED, EVICTED, EXPIRED, INVALIDATED, STALE, Departures
from isp_perf._core.eviction import Entry, EvictionQueue
from isp_perf._runtime.fork import new_lock
from isp_perf._runtime.reaper import Calendar
from isp_perf.cache._stats import Counters
from isp_perf.cache._store import Keyed, StagedEntry, Store
from isp_perf.cache._suspension import Suspension
from isp_perf.typing import Clock

__all__ = ["FINE_TTL", "Description", "Keyed", "LocalLevel", "StagedEntry", "Store"]

# Below this ttl a bucket's width and the thread's lateness would show: such entries are compared on each hit.
FINE_TTL: Final = 0.25
_ROUNDED_UP: Final = 0.001
_REMEMBERED: Final = 1024


class Description(NamedTuple):
    """What is known of one entry; never its value.

    Attributes:
        key: the logical key.
        age: seconds since it was loaded, up to ttl/256 too many; ``None`` if nobody knows (a ttl that is drawn).
        left: seconds until it is no longer fresh, <= 0 for a stale value.
        stale_left: seconds until it is not returned in any case.
        tags: its tags.
        hits: how often it was returned.
        load_seconds: how long its load took; ``None`` if nobody wrote that down.
        served: whether a call would get it now without a load.
    """

    key: str
    age: float | None
    left: float
    stale_left: float
    tags: tuple[str, ...]
    hits: int
    load_seconds: float | None
    served: bool


class LocalLevel:
    """The entries of one manager.

    Args:
        max_entries: room; the eviction policy is S3-FIFO.
        clock: monotonic seconds. With another clock than ``time.monotonic`` expiry is compared on each read.
    """

    clock: Clock
    counters: Counters
    lock: Any

    def __init__(self, max_entries: int, clock: Clock) -> None:
        self.lock = new_lock()
        self.clock = clock
        self.counters = Counters()
        self.index: dict[str, Entry] | None = None
        self.tagged: dict[str, set[Entry]] = {}
        self.departures = Departures(_REMEMBERED)
        self._suspension = Suspension()
        self._queue = EvictionQueue(max_entries, self._evict_locked)
        self._calendar = Calendar(self.lock, self._expire_locked, _alive)

    def __len__(self) -> int:
        return len(self._queue)

    def configure_locked(self, max_entries: int, clock: Clock) -> None:
        """Drop everything and go on with other settings."""
        for entry in self._queue.living():
            self._forget_locked(entry)
        self.clock = clock
        self._queue = EvictionQueue(max_entries, self._evict_locked)
        self._calendar.clear_locked()

    def find_locked(self, store: Store, slot: Any) -> Entry | None:
        """Return the fresh entry in ``slot``, if there is one."""
        entry = store.find(slot)
        if entry is None and self.index is not None:
            entry = self._adopt_locked(store, slot)
        if entry is None or self._suspension.distrusted:
            return None
        if self.clock() < entry.due or self._demote_locked(entry):
            return entry
        self._note_locked(entry, EXPIRED)
        self.remove_locked(entry).expired += 1
        self.counters.expired += 1
        return None

    @property
    def distrusted(self) -> bool:
        """Whether nothing may be served; see ``suspend_locked``."""
        return self._suspension.distrusted

    def suspend_locked(self, cause: Hashable, *, serve: bool) -> None:
        """Empty every ``hot`` until ``resume_locked(cause)``; O(functions). What is stored meanwhile waits as well.

        Args:
            cause: what to resume by; causes stand side by side.
            serve: the slow path may return fresh entries; ``False``: nothing is served while this cause stands.
        """
        self._suspension.begin(cause, serve=serve)

    def resume_locked(self, cause: Hashable) -> None:
        """Let entries be served again, unless another cause stands. What was removed meanwhile stays away."""
        self._suspension.end(cause)

    def drop_all_locked(self) -> None:
        """Invalidate every entry, because nobody knows what is still true. Loads in progress are not concerned."""
        for entry in self._queue.living():
            self.invalidate_locked(entry)

    def reason_locked(self, store: Store, slot: Any) -> str:
        """Return why a call for ``slot`` is a miss, a word of ``_core.departures``."""
        if store.find(slot) is not None:
            return DISTRUSTED if self._suspension.distrusted else STALE
        mark = store.mark(slot)
        return EVICTED if self._queue.remembers(mark) else self.departures.last(mark)

    def describe_locked(self, entry: Entry) -> Description:
        """Return what is known of a living entry."""
        now = self.clock()
        left = stale_left = entry.due - now
        home: Store = entry.home
        if isinstance(entry, StagedEntry):
            left, stale_left = entry.life.fresh_until - now, entry.life.until - now
            age: float | None = now - entry.born
            tags, load_seconds = tuple(sorted(entry.tags)), entry.load_seconds or None
        else:
            ttl = home.owner.policy.steady
            age = None if ttl is None else max(0.0, ttl - left)
            tags, load_seconds = (), None
        served = stale_left > 0 and not self._suspension.distrusted
        return Description(
            self.key_of(entry),
            age,
            left,
            stale_left,
            tags=tags,
            hits=entry.hits,
            load_seconds=load_seconds,
            served=served,
        )

    def _note_locked(self, entry: Entry, reason: str) -> None:
        """Remember why a living entry leaves."""
        self.departures.note(entry.home.mark(entry.slot), reason)

    def _demote_locked(self, entry: Entry) -> bool:
        """Move an entry that is no longer fresh out of the wrapper's sight; ``False`` if it has no further age."""
        if not isinstance(entry, StagedEntry) or self.clock() >= entry.life.until:
            return False
        self._calendar.release_locked(entry.due)
        home: Store = entry.home
        if home.shelf.get(entry.slot) is entry:
            del home.shelf[entry.slot]
            home.cold[entry.slot] = entry
        entry.due = entry.life.until
        if self.clock is monotonic:
            entry.due = self._calendar.add_locked(entry, entry.due, entry.life.until - entry.life.refresh_at)
        return True

    def insert_locked(self, store: Store, slot: Any, value: Any, *, ttl: float, native: bool) -> None:
        """Keep ``value`` for ``ttl`` seconds; others leave if there is no room.

        Args:
            store: where.
            slot: its key there.
            value: what to keep.
            ttl: seconds > 0.
            native: the slot is the arguments themselves, so the wrapper may find it.
        """
        self._place_locked(store, Entry(value, slot, self.clock() + ttl), ttl=ttl, native=native)

    def insert_staged_locked(self, store: Store, entry: StagedEntry, *, native: bool) -> None:
        """Keep an entry with tags, or with more ages than fresh and expired; see ``insert_locked``."""
        self._place_locked(store, entry, ttl=entry.life.refresh_at - self.clock(), native=native)
        for tag in entry.tags:
            self.tagged.setdefault(tag, set()).add(entry)

    def _place_locked(self, store: Store, entry: Entry, *, ttl: float, native: bool) -> None:
        slot, clock = entry.slot, self.clock
        if store.level is not self:
            store.level = self
            self._suspension.admit(store)
        old = store.find(slot)
        if old is not None:
            self.remove_locked(old)
        reaped = clock is monotonic and self._schedule_locked(entry, ttl)
        entry.home = store
        self._queue.insert(entry)
        asks = store.owner.hit_clock
        served = reaped if asks is None else asks is clock
        (store.shelf if native and served else store.cold)[slot] = entry
        if self.index is not None:
            self._enter_locked(entry)

    def _schedule_locked(self, entry: Entry, ttl: float) -> bool:
        """Have the reaper take ``entry`` away; return whether that is exact enough to ask no clock on a hit."""
        if ttl < FINE_TTL:
            self._calendar.add_locked(entry, entry.due + _ROUNDED_UP, ttl)
            return False
        entry.due = self._calendar.add_locked(entry, entry.due, ttl)
        return True

    def remove_locked(self, entry: Entry) -> Counters:
        """Take ``entry`` out, whatever the cause, and return the counters of its owner."""
        counters = self._forget_locked(entry)
        self._queue.discard(entry)
        self._calendar.release_locked(entry.due)
        return counters

    def invalidate_locked(self, entry: Entry) -> None:
        """Take ``entry`` out because it is no longer true."""
        self._note_locked(entry, INVALIDATED)
        self.remove_locked(entry).invalidated += 1
        self.counters.invalidated += 1

    def living_locked(self) -> list[Entry]:
        """Return every entry."""
        return self._queue.living()

    def index_locked(self) -> dict[str, Entry]:
        """Return logical key -> entry; built at the first call by key and kept up from then on."""
        if self.index is None:
            self.index = {}
            for entry in self._queue.living():
                self._enter_locked(entry)
        return self.index

    def key_of(self, entry: Entry) -> str:
        """Return the logical key of a living entry."""
        key: str = entry.home.owner.key_of(entry.slot, entry.home.token)
        return key

    def _enter_locked(self, entry: Entry) -> None:
        index = self.index_locked()
        other = index.get(key := self.key_of(entry))
        if other is not None and other is not entry:
            self.remove_locked(other)
        index[key] = entry

    def _adopt_locked(self, store: Store, slot: Any) -> Entry | None:
        """Move an entry that was stored by key to the function whose key it is."""
        entry = self.index_locked().get(store.owner.key_of(slot, store.token))
        if entry is None:
            return None
        entry.home.drop(entry)
        entry.home, entry.slot = store, slot
        store.cold[slot] = entry
        return entry

    def _forget_locked(self, entry: Entry) -> Counters:
        home: Store = entry.home
        if self.index is not None:
            self.index.pop(self.key_of(entry), None)
        home.drop(entry)
        if isinstance(entry, StagedEntry):
            self._untag_locked(entry)
        entry.home = None
        self.counters.retired += entry.hits
        home.owner.counters.retired += entry.hits
        return home.owner.counters

    def _untag_locked(self, entry: StagedEntry) -> None:
        for tag in entry.tags:
            others = self.tagged.get(tag)
            if others is not None:
                others.discard(entry)
                if not others:
                    del self.tagged[tag]

    def _evict_locked(self, entry: Entry) -> None:
        self._forget_locked(entry).evicted += 1
        self.counters.evicted += 1
        self._calendar.release_locked(entry.due)

    def _expire_locked(self, due: list[Entry]) -> None:
        for entry in due:
            if entry.home is not None and not self._demote_locked(entry):
                self._note_locked(entry, EXPIRED)
                self._forget_locked(entry).expired += 1
                self.counters.expired += 1
                self._queue.discard(entry)


def _alive(entry: Entry) -> bool:
    return entry.home is not None
