"""The local level (L1): what may be returned now, how long, and what leaves for want of room.

Invariant: a store's ``hot`` dict holds only values that may be returned now, because the generated wrapper returns them
without another question: no clock, no lock. Whatever needs a look first is ``cold`` and found by the slow path.
"""

from collections.abc import Hashable, Mapping, MutableMapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from isp_perf._core.departures import ABSENT, DISTRUSTED, EVICTED, EXPIRED, INVALIDATED, STALE, Departures
from isp_perf._core.eviction import NOT_MARKED, Entry, EvictionQueue
from isp_perf._runtime.flights import Flight
from isp_perf._runtime.fork import new_lock
from isp_perf._runtime.reaper import Calendar, Journal, Moment
from isp_perf.cache._describe import Description, describe
from isp_perf.cache._expiry import all_items, give_back, hide_all, in_slices
from isp_perf.cache._index import Index, key_of, tag, untag
from isp_perf.cache._room import Borrowed, Weighed, room_for, weigh
from isp_perf.cache._stats import Counters
from isp_perf.cache._store import FINE_TTL, MOST_UNCOUNTED, Keyed, StagedEntry, Store, WeighedEntry
from isp_perf.cache._suspension import Suspension

if TYPE_CHECKING:
    from isp_perf.typing import Clock

__all__ = ["Description", "Keyed", "LocalLevel", "StagedEntry", "Store"]

_REMEMBERED: Final = 1024
_SWEPT: Final = 4


class LocalLevel:
    """The entries of one manager.

    Args:
        max_entries: room; the eviction policy is S3-FIFO.
        clock: monotonic seconds. With another clock than ``time.monotonic`` expiry is compared on each read.

    Attributes:
        counters: what the manager has counted.
        departures: why entries left lately.
        index: logical key -> entry, once somebody has asked by key.
        keyed: what is stored by key and not by a function; a function's miss has to look there.
        plain: entries may be placed the short way: real clock, room by number, not suspended.
        suspended: whether ``hot`` is empty for a cause.
        tagged: tag -> entries.
    """

    key_of: "staticmethod[[Entry], str]" = staticmethod(key_of)

    clock: "Clock"
    counters: Counters
    departures: Departures
    lock: Any
    plain: bool
    suspended: bool

    def __init__(self, max_entries: int, clock: "Clock") -> None:
        self.lock = new_lock()
        self.counters = Counters(timed=True)
        self.departures = Departures(_REMEMBERED)
        self.index: Index | None = None
        self.keyed: Mapping[Any, Entry] = {}
        self.tagged: dict[str, set[Entry]] = {}
        self._suspension = Suspension()
        self._calendar = Calendar(self.lock, self._expire)
        self._queue = EvictionQueue(max_entries)
        self.configure_locked(max_entries, clock)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def weight(self) -> int | None:
        """Bytes that the entries stand for; ``None`` where they are not counted."""
        return self._queue.weight if isinstance(self._queue, Weighed) else None

    @property
    def capacity(self) -> int:
        """The largest number of entries."""
        return self._queue.capacity

    @property
    def ghost_hits(self) -> int:
        """Misses of slots that were evicted lately: hits, if the room were larger."""
        return self._queue.ghost_hits

    @property
    def distrusted(self) -> bool:
        """Whether nothing may be served; see ``suspend_locked``."""
        return self._suspension.distrusted

    def configure_locked(
        self,
        max_entries: int,
        clock: "Clock",
        *,
        max_bytes: int | None = None,
        l1: MutableMapping[Any, Any] | None = None,
    ) -> None:
        """Drop everything and go on with other settings.

        Args:
            max_entries: room in entries, >= 1.
            clock: monotonic seconds.
            max_bytes: room in bytes beside that in entries, >= 1; a value heavier than an eighth of it is not kept.
                ``None``: not counted.
            l1: a ``cachetools.Cache``, empty, that is to hold the values and to decide which one leaves; the other two
                limits are not used then.
        """
        for entry in self._queue.living():
            self.remove_locked(entry)
        for store in self._suspension.stores:
            store.forget_moments_locked()
            store.level = None  # who comes again is admitted again
        self.clock = clock
        self._calendar.clear_locked()
        self._queue = room_for(max_entries, max_bytes=max_bytes, l1=l1, key_of=key_of)
        self._set_plain()

    def _set_plain(self) -> None:
        self.suspended = self._suspension.active
        self.plain = self.clock is monotonic and type(self._queue) is EvictionQueue and not self.suspended

    def ask_locked(self, *, asked: bool) -> None:
        """Let misses go the long way, because there is more to ask than this level, or not."""
        self._suspension.ask(asked=asked)

    def suspend_locked(self, cause: Hashable, *, serve: bool) -> None:
        """Empty every ``hot`` until ``resume_locked(cause)``; O(functions). What is stored meanwhile waits as well.

        Args:
            cause: what to resume by; causes stand side by side.
            serve: the slow path may return fresh entries; ``False``: nothing is served while this cause stands.
        """
        self._suspension.begin(cause, serve=serve)
        self._set_plain()

    def resume_locked(self, cause: Hashable) -> None:
        """Let entries be served again, unless another cause stands. What was removed meanwhile stays away."""
        self._suspension.end(cause)
        self._set_plain()

    def drop_all_locked(self) -> None:
        """Invalidate every entry, because nobody knows what is still true. Loads in progress are not concerned."""
        for entry in self._queue.living():
            self.invalidate_locked(entry)

    def find_locked(self, store: Store, slot: Any) -> Entry | None:
        """Return the fresh entry in ``slot``, if there is one."""
        entry = self._present_locked(store, slot)
        if entry is None or self._suspension.distrusted:
            return None
        if self.clock() < entry.due or self._demote_locked(entry):
            return entry
        self._note_locked(entry, EXPIRED)
        self.remove_locked(entry).expired += 1
        self.counters.expired += 1
        return None

    def _present_locked(self, store: Store, slot: Any) -> Entry | None:
        """Return the entry in ``slot``, whatever its age, if the room still has it."""
        entry = store.find(slot)
        if entry is None and self.keyed and not store.by_key:
            entry = self._adopt_locked(store, slot)
        if entry is not None and not self._queue.touch(entry):
            self._leave_locked(entry)
            return None
        return entry

    def serves_locked(self, entry: Entry) -> bool:
        """Return whether a living entry may be served, its age apart; tells a borrowed room that it is."""
        return not self._suspension.distrusted and self._queue.touch(entry)

    def reason_locked(self, store: Store, slot: Any) -> str:
        """Return why a call for ``slot`` is a miss, a word of ``_core.departures``."""
        if store.find(slot) is not None:
            return DISTRUSTED if self._suspension.distrusted else STALE
        mark = store.mark(slot)
        return EVICTED if self._queue.remembers(mark) else self.departures.last(mark)

    def _count_reason_locked(self, store: Store, entry: Entry) -> None:
        """Count why the load of a new entry was a miss, if anybody knows."""
        mark = store.mark(entry.slot)
        if entry.mark >= 0:
            self.departures.note(mark, EVICTED)
        reason = self.departures.last(mark)
        if reason is not ABSENT:
            for each in (self.counters, store.owner.counters):
                each.missed[reason] = each.missed.get(reason, 0) + 1

    def describe_locked(self, entry: Entry) -> Description:
        """Return what is known of a living entry."""
        return describe(entry, self.clock(), distrusted=self._suspension.distrusted)

    def insert_locked(
        self, store: Store, slot: Any, value: Any, *, ttl: float, native: bool, weight: int | None = None
    ) -> None:
        """Keep ``value`` for ``ttl`` seconds; others leave if there is no room.

        Args:
            store: where.
            slot: its key there.
            value: what to keep.
            ttl: seconds > 0.
            native: the slot is the arguments themselves, so the wrapper may find it.
            weight: its bytes where bytes are counted; ``None``: they are estimated.
        """
        due = self.clock() + ttl
        entry = Entry.make(value, slot, due)
        if isinstance(self._queue, Weighed):
            entry = WeighedEntry.make(value, slot, due)
            weigh(entry, weight)
        self._place_locked(store, entry, ttl=ttl, native=native)

    def insert_staged_locked(
        self, store: Store, entry: StagedEntry, *, native: bool, weight: int | None = None
    ) -> None:
        """Keep an entry with tags, or with more ages than fresh and expired; see ``insert_locked``."""
        if isinstance(self._queue, Weighed):
            weigh(entry, weight)
        self._place_locked(store, entry, ttl=entry.life.refresh_at - self.clock(), native=native)
        if entry.home is not None:
            tag(self.tagged, entry)

    def keep_locked(self, store: Store, flight: Flight, value: Any) -> None:
        """Keep what ``flight`` has loaded, unless it was detached, and end it there; the short way.

        The level is ``plain``, the store ``ordered``, the slot native and empty: a flight that is still attached has it
        for itself.
        """
        now = monotonic()
        store.spent.append(now - flight.began)
        if len(store.spent) >= MOST_UNCOUNTED:
            store.fold_locked(self.counters)
        if not flight.attached:
            return
        due, moment, slot = now + store.ttl, store.latest, flight.slot
        if due >= store.latest_end:
            self._admit_locked(store)
            moment = store.moment_locked(self._calendar, due)
        entry = Entry()
        entry.value = value
        entry.home = store
        entry.slot = slot
        entry.due = moment
        entry.hits = 0
        entry.mark = NOT_MARKED
        leaving = self._queue.exchange(entry)
        store.hot[slot] = entry
        if leaving is not None:
            self._make_way_locked(leaving)
        if entry.mark >= 0 or self.departures.any:
            self._count_reason_locked(store, entry)
        if self.index is not None:
            self._enter_locked(entry)
        del store.flights[slot]

    def _make_way_locked(self, entry: Entry) -> None:
        """As ``_leave_locked``, the short way for entries that nobody has written down anywhere."""
        home, slot = entry.home, entry.slot
        if entry.due.__class__ is not Moment or self.index is not None or home.hot.pop(slot, None) is not entry:
            self._leave_locked(entry)
            return
        entry.home = None
        home.evicted += 1
        if entry.hits:
            home.retired += entry.hits

    def _place_locked(self, store: Store, entry: Entry, *, ttl: float, native: bool) -> None:
        slot = entry.slot
        self._clear_locked(store, slot)
        entry.home = store
        leaving = self._queue.admit(entry)
        if leaving is None:
            entry.home = None
            return
        shown = native and not isinstance(self._queue, Borrowed)
        shelf = store.shelf if self._reap_locked(store, entry, ttl=ttl, shown=shown) and shown else store.cold
        shelf[slot] = entry
        for other in leaving:
            self._leave_locked(other)
        if self.index is not None:
            self._enter_locked(entry)
        if store.by_key:
            self._suspension.shade(slot[0])

    def _reap_locked(self, store: Store, entry: Entry, *, ttl: float, shown: bool) -> bool:
        """Have the reaper take a new entry away; return whether the wrapper may serve it until then."""
        reaped = self.clock is monotonic and store.schedule_locked(self._calendar, entry, ttl=ttl, shown=shown)
        asks = store.owner.hit_clock
        return reaped if asks is None else asks is self.clock

    def _clear_locked(self, store: Store, slot: Any) -> None:
        """Take out what is in ``slot``, and take note of the store."""
        self._admit_locked(store)
        old = store.find(slot)
        if old is not None:
            self.remove_locked(old)

    def _admit_locked(self, store: Store) -> None:
        if store.level is self:
            return
        store.level = self
        store.shadowed = any(key.startswith(store.head) for (key,) in self.keyed)
        self._suspension.admit(store)
        if store.by_key:
            self.keyed = store.cold

    def _demote_locked(self, entry: Entry) -> bool:
        """Move an entry that is no longer fresh out of the wrapper's sight; ``False`` if it has no further age."""
        if not isinstance(entry, StagedEntry) or entry.aged or self.clock() >= entry.life.until:
            return False
        entry.aged = True
        home: Store = entry.home
        if home.shelf.get(entry.slot) is entry:
            del home.shelf[entry.slot]
            home.cold[entry.slot] = entry
        entry.due = entry.life.until
        if self.clock is monotonic:
            rest = max(FINE_TTL, entry.life.until - entry.life.refresh_at)
            home.schedule_locked(self._calendar, entry, ttl=rest, shown=False)
        return True

    def remove_locked(self, entry: Entry) -> Counters:
        """Take ``entry`` out, whatever the cause, and return the counters of its owner."""
        counters = self._forget_locked(entry)
        self._queue.discard(entry)
        self._queue.sweep(_SWEPT)
        return counters

    def invalidate_locked(self, entry: Entry) -> None:
        """Take ``entry`` out because it is no longer true."""
        self._note_locked(entry, INVALIDATED)
        self.remove_locked(entry).invalidated += 1
        self.counters.invalidated += 1

    def living_locked(self) -> list[Entry]:
        """Return every entry, all counters up to date."""
        for entry in self._queue.lost():
            self._leave_locked(entry)
        for store in self._suspension.stores:
            store.fold_locked(self.counters)
        return self._queue.living()

    def index_locked(self) -> dict[str, Entry]:
        """Return logical key -> entry; built at the first call by key and kept up from then on."""
        if self.index is None:
            self.index = {}
            for entry in self._queue.living():
                self._enter_locked(entry)
        return self.index

    def _enter_locked(self, entry: Entry) -> None:
        index = self.index_locked()
        other = index.get(key := key_of(entry))
        if other is not None and other is not entry:
            self.remove_locked(other)
        index[key] = entry

    def _adopt_locked(self, store: Store, slot: Any) -> Entry | None:
        """Move an entry that was stored by key to the function whose key it is."""
        entry = self.keyed.get((store.owner.key_of(slot, store.token),))
        if entry is None:
            return None
        entry.home.drop(entry)
        entry.home, entry.slot = store, slot
        store.cold[slot] = entry
        return entry

    def _note_locked(self, entry: Entry, reason: str) -> None:
        """Remember why a living entry leaves."""
        self.departures.note(entry.home.mark(entry.slot), reason)

    def _forget_locked(self, entry: Entry) -> Counters:
        home: Store = entry.home
        if self.index is not None:
            self.index.pop(key_of(entry), None)
        home.drop(entry)
        if isinstance(entry, StagedEntry):
            untag(self.tagged, entry)
        entry.home = None
        if isinstance(entry.due, Journal):
            entry.due.release()
        counters = home.owner.counters
        if entry.hits:
            self.counters.retired += entry.hits
            counters.retired += entry.hits
        return counters

    def _leave_locked(self, entry: Entry) -> None:
        """Take out an entry for want of room."""
        self._forget_locked(entry).evicted += 1
        self.counters.evicted += 1

    def _expire(self, moments: list[Moment]) -> None:
        """Take away what is due; called by the reaper without the lock."""
        with self.lock:
            due = [moment.group.due_locked(moment) for moment in moments]
            for moment in moments:
                moment.group.close_locked(moment)
            rest = [entry for journal in hide_all(due) for entry in journal.items]
            items = all_items(due)
            self._note_expired_locked(items[-_REMEMBERED:])
        in_slices(self.lock, rest, self._hide_locked)
        in_slices(self.lock, items, self._retire_locked)
        give_back(self.lock, self._queue.sweep)

    def _note_expired_locked(self, entries: list[Entry]) -> None:
        """Remember why those leave that have no further age."""
        plain = [entry for entry in entries if entry.home and not isinstance(entry, StagedEntry)]
        self.departures.note_all((entry.home.mark(entry.slot) for entry in plain), EXPIRED)

    def _hide_locked(self, entries: list[Entry]) -> None:
        """Take due entries out of sight, those with a further age to where only the slow path sees them."""
        for entry in entries:
            if entry.home is not None and not self._demote_locked(entry):
                entry.home.drop(entry)

    def _retire_locked(self, entries: list[Entry]) -> None:
        """Do the books of expired entries, which nobody can see any more."""
        for entry in entries:
            if entry.home is None or (isinstance(entry, StagedEntry) and self.clock() < entry.due):
                continue
            self._forget_locked(entry).expired += 1
            self.counters.expired += 1
            self._queue.discard(entry)
