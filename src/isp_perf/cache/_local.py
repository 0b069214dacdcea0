"""The local level (L1): what may be returned now, how long, and what leaves for want of room.

Invariant: a store's ``hot`` dict holds only values that may be returned now, because the generated wrapper returns them
without another question: no clock, no lock. Whatever needs a look first is ``cold`` and found by the slow path.
"""

from time import monotonic
from typing import Any, Final, Protocol

from isp_perf._core.eviction import Entry, EvictionQueue
from isp_perf._core.freshness import Life
from isp_perf._runtime.flights import Flight
from isp_perf._runtime.fork import new_lock
from isp_perf._runtime.reaper import Calendar
from isp_perf.cache._stats import Counters
from isp_perf.typing import Clock

__all__ = ["FINE_TTL", "Keyed", "LocalLevel", "StagedEntry", "Store"]

# Below this ttl a bucket's width and the thread's lateness would show: such entries are compared on each hit.
FINE_TTL: Final = 0.25
_ROUNDED_UP: Final = 0.001


class Keyed(Protocol):
    """The owner of a store: a decorated function, or the manager's own by-key store."""

    counters: Counters

    @property
    def hit_clock(self) -> Clock | None:
        """The clock the wrapper compares with on each hit; ``None``: it trusts ``hot``."""
        ...

    def key_of(self, slot: Any, token: str) -> str:
        """Return the logical key of a slot."""
        ...


class StagedEntry(Entry):
    """An entry with tags, or with more ages than fresh and expired.

    Attributes:
        life: its moments.
        tags: its tags.
        etag: what the loader keeps beside the value.
        retry_at: after a failed refresh, the moment of the next attempt.
    """

    __slots__ = ("etag", "life", "retry_at", "tags")

    retry_at: float

    life: Life

    def __init__(self, value: Any, slot: Any, due: float) -> None:
        super().__init__(value, slot, due)
        self.retry_at = float("-inf")
        self.etag: Any = None
        self.tags: frozenset[str] = frozenset()


class Store:
    """The entries and flights of one function, or of one instance's method.

    Attributes:
        hot: slot -> entry that the wrapper may return.
        cold: slot -> entry that the slow path looks at first.
        flights: slot -> attached flight.
        token: what tells the keys of this instance from those of others.
    """

    __slots__ = ("cold", "flights", "hot", "owner", "token")

    owner: Keyed
    token: str

    def __init__(self, owner: Keyed, token: str) -> None:
        self.owner = owner
        self.token = token
        self.hot: dict[Any, Entry] = {}
        self.cold: dict[Any, Entry] = {}
        self.flights: dict[Any, Flight] = {}


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
        entry = store.hot.get(slot) or store.cold.get(slot)
        if entry is None and self.index is not None:
            entry = self._adopt_locked(store, slot)
        if entry is None or self.clock() < entry.due or self._demote_locked(entry):
            return entry
        self.remove_locked(entry).expired += 1
        self.counters.expired += 1
        return None

    def _demote_locked(self, entry: Entry) -> bool:
        """Move an entry that is no longer fresh out of the wrapper's sight; ``False`` if it has no further age."""
        if not isinstance(entry, StagedEntry) or self.clock() >= entry.life.until:
            return False
        self._calendar.release_locked(entry.due)
        home: Store = entry.home
        if home.hot.get(entry.slot) is entry:
            del home.hot[entry.slot]
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
        old = store.hot.get(slot) or store.cold.get(slot)
        if old is not None:
            self.remove_locked(old)
        reaped = clock is monotonic and self._schedule_locked(entry, ttl)
        entry.home = store
        self._queue.insert(entry)
        asks = store.owner.hit_clock
        served = reaped if asks is None else asks is clock
        (store.hot if native and served else store.cold)[slot] = entry
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
        self._leave_store(entry)
        entry.home, entry.slot = store, slot
        store.cold[slot] = entry
        return entry

    def _forget_locked(self, entry: Entry) -> Counters:
        home: Store = entry.home
        if self.index is not None:
            self.index.pop(self.key_of(entry), None)
        self._leave_store(entry)
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

    def _leave_store(self, entry: Entry) -> None:
        home: Store = entry.home
        for place in (home.hot, home.cold):
            if place.get(entry.slot) is entry:
                del place[entry.slot]

    def _evict_locked(self, entry: Entry) -> None:
        self._forget_locked(entry).evicted += 1
        self.counters.evicted += 1
        self._calendar.release_locked(entry.due)

    def _expire_locked(self, due: list[Entry]) -> None:
        for entry in due:
            if entry.home is not None and not self._demote_locked(entry):
                self._forget_locked(entry).expired += 1
                self.counters.expired += 1
                self._queue.discard(entry)


def _alive(entry: Entry) -> bool:
    return entry.home is not None
