"""Where one function's entries are, and what an entry with more than a ttl has besides."""

from bisect import bisect_right
from itertools import count, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from isp_perf._core.eviction import Entry
from isp_perf._core.freshness import Life
from isp_perf._runtime.flights import Flight
from isp_perf._runtime.reaper import Calendar, Journal, Moment, rounded, width
from isp_perf.cache._config import CachePolicy
from isp_perf.cache._stats import Counters

if TYPE_CHECKING:
    from isp_perf.typing import Clock

__all__ = ["FINE_TTL", "MOST_UNCOUNTED", "Keyed", "StagedEntry", "Store", "WeighedEntry"]

MOST_UNCOUNTED: Final = 1024
"""Loads of the short way that may wait to be counted: what keeps ``Store.spent`` short, however long a ttl is."""

# Below this ttl a moment's width and the thread's lateness would show: such entries are compared on each hit.
FINE_TTL: Final = 0.25
_ROUNDED_UP: Final = 0.001
_due_of: Final = attrgetter("due")
_NO_MOMENT: Final = Moment("-inf")
_FEW: Final = 1024
_FEW_MORE: Final = 4
_numbers: Final = count(1)
_GOLDEN: Final = 0x9E3779B97F4A7C15  # consecutive numbers times this differ in every part of 60 bits
_SALT_BITS: Final = (1 << 60) - 1
_BELOW_ANY_HASH: Final = -(1 << 64)


class Keyed(Protocol):
    """The owner of a store: a decorated function, or the manager's own by-key store."""

    counters: Counters
    policy: CachePolicy

    @property
    def hit_clock(self) -> "Clock | None":
        """The clock the wrapper compares with on each hit; ``None``: it trusts ``hot``."""
        ...

    def key_of(self, slot: Any, token: str) -> str:
        """Return the logical key of a slot."""
        ...


class WeighedEntry(Entry):
    """An entry where bytes are counted.

    Attributes:
        weight: bytes it stands for.
    """

    __slots__ = ("weight",)

    weight: int

    @classmethod
    def make(cls, value: Any, slot: Any, due: float) -> Self:
        """Return a new entry without a weight."""
        entry = super().make(value, slot, due)
        entry.weight = 0
        return entry


class StagedEntry(WeighedEntry):
    """An entry with tags, or with more ages than fresh and expired.

    Attributes:
        aged: whether its first age is over.
        born: when it was stored, in seconds of the manager's clock.
        life: its moments.
        load_seconds: how long its load took.
        tags: its tags.
        etag: what the loader keeps beside the value.
        retry_at: after a failed refresh, the moment of the next attempt.
    """

    __slots__ = ("aged", "born", "etag", "life", "load_seconds", "retry_at", "tags")

    aged: bool
    born: float
    etag: Any
    life: Life
    load_seconds: float
    retry_at: float
    tags: frozenset[str]

    @classmethod
    def make(cls, value: Any, slot: Any, due: float) -> Self:
        """Return a new entry without tags, whose first age is not over."""
        entry = super().make(value, slot, due)
        entry.aged = False
        entry.retry_at = float("-inf")
        entry.load_seconds = 0.0
        entry.etag = None
        entry.tags = frozenset()
        return entry


class Store:
    """The entries and flights of one function, or of one instance's method.

    Attributes:
        hot: slot -> entry that the wrapper may return.
        cold: slot -> entry that the slow path looks at first.
        aside: what would be hot, while the level is suspended; empty otherwise.
        shelf: ``hot``, or ``aside`` while the level is suspended: where an entry that may be hot is.
        flights: slot -> attached flight.
        head: what all keys of the function begin with.
        shadowed: whether something was stored by key that begins so: it may be what a call asks for.
        detour: a miss has more to look at than its slot: nothing was stored yet, the level is suspended, it is not all
            there is to ask, ``shadowed``.
        token: what tells the keys of this instance from those of others.
        salt: what tells the marks of this store (hash of a slot plus salt) from those of others.
        level: the local level that has heard of this store.
        by_key: whether its slots are one-element tuples of keys of the user's own.
        group: the store whose journals this one uses: instances come and go, and journals stay until their time.
        journals: time -> journal of the entries of this store that are due then.
        ttl: seconds that the function's values live, where that is the same for all.
        ordered: whether the entries on the shelf become due in the order in which they stand there, so that nobody
            has to write down when; until ``unorder_locked``.
        latest: the moment last used for entries in order, those due before ``latest_end``.
        spent: the seconds of each load of the short way of a miss, ``MOST_UNCOUNTED`` at most; as ``evicted`` and
            ``retired`` counted once for the function and the manager; ``fold_locked`` adds it to both.
    """

    __slots__ = (
        "__weakref__",
        "aside",
        "by_key",
        "cold",
        "detour",
        "evicted",
        "flights",
        "group",
        "head",
        "hot",
        "journals",
        "latest",
        "latest_end",
        "level",
        "ordered",
        "owner",
        "retired",
        "salt",
        "shadowed",
        "shelf",
        "spent",
        "token",
        "ttl",
    )

    by_key: bool
    detour: bool
    evicted: int
    group: "Store | None"
    head: str
    latest: Moment
    latest_end: float
    ordered: bool
    owner: Keyed
    retired: int
    salt: int
    shadowed: bool
    shelf: dict[Any, Entry]
    spent: list[float]
    token: str
    ttl: float

    def __init__(self, owner: Keyed, token: str, *, by_key: bool = False, group: "Store | None" = None) -> None:
        self.owner = owner
        self.group = group
        self.by_key = by_key
        self.token = token
        self.head = ""
        self.detour = True
        self.shadowed = False
        self.salt = (next(_numbers) * _GOLDEN & _SALT_BITS) + _BELOW_ANY_HASH
        self.hot: dict[Any, Entry] = {}
        self.cold: dict[Any, Entry] = {}
        self.aside: dict[Any, Entry] = {}
        self.shelf = self.hot
        self.flights: dict[Any, Flight] = {}
        self.level: object = None
        self.journals: dict[float, Journal] = {}
        self.ordered = False
        self.ttl = 0.0
        self._open_no_moment()
        self.evicted = self.retired = 0
        self.spent = []

    def find(self, slot: Any) -> Entry | None:
        """Return the entry in ``slot``, whatever its age."""
        return self.shelf.get(slot) or self.cold.get(slot)

    def mark(self, slot: Any) -> int:
        """Return the number by which ghosts and departures know ``slot`` of this store."""
        return hash(slot) + self.salt

    def drop(self, entry: Entry) -> None:
        """Take ``entry`` out of its place."""
        slot = entry.slot
        if self.shelf.get(slot) is entry:
            del self.shelf[slot]
        elif self.cold.get(slot) is entry:
            del self.cold[slot]

    def entries(self) -> list[Entry]:
        """Return every entry."""
        return [*self.shelf.values(), *self.cold.values()]

    def journal_locked(self, calendar: Calendar, due: float, *, ttl: float) -> Journal:
        """Return the journal for an entry that lives ``ttl`` seconds until ``due``, made anew if there is none."""
        at = rounded(due, ttl)
        keeper = self.group or self
        journal = keeper.journals.get(at)
        if journal is None or journal.full:
            journal = keeper.journals[at] = calendar.journal_locked(due, ttl, keeper)
        return journal

    def moment_locked(self, calendar: Calendar, due: float) -> Moment:
        """Return the moment for an entry that comes in order; it is due after every one on the shelf."""
        if due >= self.latest_end:
            self.latest = calendar.moment_locked(due, self.ttl, self)
            self.latest_end = self.latest + width(self.ttl)
        return self.latest

    def schedule_locked(self, calendar: Calendar, entry: Entry, *, ttl: float, shown: bool) -> bool:
        """Have the reaper take ``entry`` away; return whether that is exact enough to ask no clock on a hit.

        ``shown``: it is going to stand on the shelf, behind the others.
        """
        if shown and self.ordered:
            if ttl == self.ttl and not isinstance(entry, StagedEntry):
                entry.due = self.moment_locked(calendar, entry.due)
                return True
            self.unorder_locked(calendar)
        if ttl < FINE_TTL:
            journal = self.journal_locked(calendar, entry.due + _ROUNDED_UP, ttl=ttl)
        else:
            entry.due = journal = self.journal_locked(calendar, entry.due, ttl=ttl)
        journal.items.append(entry)
        if isinstance(entry, StagedEntry) and not entry.aged:
            journal.final = False
        return ttl >= FINE_TTL

    def unorder_locked(self, calendar: Calendar) -> None:
        """Write down when each entry is due, because one comes that is due earlier or later than its turn."""
        self.ordered = False
        self._open_no_moment()
        for entry in self.shelf.values():
            entry.due = journal = self.journal_locked(calendar, entry.due, ttl=self.ttl)
            journal.items.append(entry)

    def due_locked(self, moment: Moment) -> Journal:
        """Return the journal of what is due at ``moment``: the first ones on the shelf, where they are in order."""
        if isinstance(moment, Journal):
            return moment
        return Journal.of(moment, self, self._first_due(moment) if self.ordered else [])

    def _first_due(self, moment: float) -> list[Entry]:
        number, first = _FEW, list(islice(self.shelf.values(), _FEW))
        while len(first) == number and first[-1].due <= moment:
            number *= _FEW_MORE
            first = list(islice(self.shelf.values(), number))
        return first[: bisect_right(first, moment, key=_due_of)]

    def fold_locked(self, totals: Counters) -> None:
        """Add what the short way has counted to the counters of the owner and of the manager."""
        for counters in (self.owner.counters, totals):
            counters.misses += len(self.spent)
            counters.count_loads(self.spent)
            counters.evicted += self.evicted
            counters.retired += self.retired
        self.evicted = self.retired = 0
        self.spent.clear()

    def close_locked(self, moment: Moment) -> None:
        """Take nothing more into ``moment``, whose time has come."""
        if self.journals.get(moment) is moment:
            del self.journals[moment]
        if self.latest is moment:
            self._open_no_moment()

    def forget_moments_locked(self) -> None:
        """Take nothing more into any moment so far."""
        self.journals.clear()
        self._open_no_moment()

    def _open_no_moment(self) -> None:
        self.latest = _NO_MOMENT
        self.latest_end = _NO_MOMENT
