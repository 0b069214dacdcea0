"""S3-FIFO with hits that are counted now and folded later.

A hit is ``entry.hits += 1``: nothing else may stand on that path. The textbook form caps a counter at each hit; here
the queue scan folds what was counted since its last visit, ``frequency = min(3, hits - mark)``, and puts the mark where
the frequency less one is what is left, which evicts the same entries in the same order. Small queue 20 % of the
capacity, ghost twice the capacity, promotion out of the small queue from the second hit on.
Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.

An entry of the small queue is looked at once, when it leaves, so it needs no frequency: its mark is the number by which
the ghost was asked for it and is going to know it, which is negative. The ghost is a dict, not a set: it takes less
memory, and its oldest are side by side.
Entries that were removed otherwise stay in their queue as dead slots (``home is None``) and are skipped; ``sweep``
gives them back a few at a time, since one pass over a large queue would hold up everybody.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Protocol, Self

__all__ = ["NOT_MARKED", "Entry", "EvictionQueue", "Home"]

_CAP: Final = 3
NOT_MARKED: Final = -1
_FEWEST_DEAD: Final = 64


class Home(Protocol):
    """Where an entry lives.

    Attributes:
        salt: tells its slots from those of other homes; below -2**63, so that the hash of a slot plus it is negative.
    """

    salt: int


class Entry:
    """One value of the local level.

    Attributes:
        value: what the loader returned.
        hits: how often it was served; written without a lock by the hit path.
        home: the store it lives in; ``None`` before it is inserted and once it was removed.
        slot: its key inside the store.
        due: the moment of expiry in seconds of the manager's clock, or a little before.
        mark: below 0 in the small queue: hash of the slot plus salt of the home, or -1 if it came before there was a
            ghost; in the main queue ``hits`` at the last visit less the frequency left then.
    """

    __slots__ = ("due", "hits", "home", "mark", "slot", "value")

    due: float
    hits: int
    home: Any
    mark: int
    slot: Any
    value: Any

    @classmethod
    def make(cls, value: Any, slot: Any, due: float) -> Self:
        """Return a new entry; there is no ``__init__``, because the short way of a miss has no time to call one."""
        entry = cls()
        entry.value = value
        entry.home = None
        entry.slot = slot
        entry.due = due
        entry.hits = 0
        entry.mark = NOT_MARKED
        return entry


class EvictionQueue:
    """Decides which entry leaves when a new one comes.

    Args:
        capacity: the largest number of living entries; >= 1.
    """

    __slots__ = (
        "_ghost",
        "_ghost_size",
        "_main",
        "_main_size",
        "_order",
        "_small",
        "_small_size",
        "_stale",
        "_sweeping",
        "capacity",
        "ghost_hits",
        "main_live",
        "small_live",
    )

    capacity: int
    ghost_hits: int
    main_live: int
    small_live: int

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._small_size = max(1, capacity // 5)
        self._main_size = max(1, capacity - self._small_size)
        self._ghost_size = 2 * capacity
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._ghost: dict[int, None] = {}
        self._order: deque[int] = deque()
        self._stale: dict[int, int] = {}
        self._sweeping = [0, 0]
        self.small_live = self.main_live = self.ghost_hits = 0

    def __len__(self) -> int:
        return self.small_live + self.main_live

    def insert(self, entry: Entry) -> Entry | None:
        """Take in a new entry, whose ``home`` is set, and return the one that has to leave for it."""
        leaving = self.evict() if self.small_live + self.main_live >= self.capacity else None
        if self._ghost:
            entry.mark = mark = _mark_of(entry)
            if mark in self._ghost:
                self._revive(mark)
                entry.mark = 0
                self._main.append(entry)
                self.main_live += 1
                return leaving
        self._small.append(entry)
        self.small_live += 1
        return leaving

    def exchange(self, entry: Entry) -> Entry | None:
        """As ``insert``, the short way where the oldest of the small queue leaves at once, as it mostly does.

        Then both numbers of living entries stay as they are.
        """
        small, ghost = self._small, self._ghost
        if not self._small_size <= self.small_live >= self.capacity - self.main_live:
            return self.insert(entry)
        leaving = small[0]
        if leaving.hits > 1 or leaving.home is None:
            return self.insert(entry)
        entry.mark = mark = hash(entry.slot) + entry.home.salt
        if mark in ghost:
            return self.insert(entry)
        small.popleft()
        small.append(entry)
        mark = leaving.mark
        if mark == NOT_MARKED:
            mark = _mark_of(leaving)
        ghost[mark] = None
        self._order.append(mark)
        if len(ghost) > self._ghost_size:
            if self._stale:
                self._forget_oldest()
            else:
                ghost.pop(self._order.popleft(), None)  # gone already, if two slots have the same hash
        return leaving

    def admit(self, entry: Entry) -> list[Entry] | None:
        """As ``insert`` for rooms of every kind: who leaves; ``None`` if the entry is too large to be kept."""
        leaving = self.insert(entry)
        return [] if leaving is None else [leaving]

    def touch(self, entry: Entry) -> bool:
        """Tell whether an entry that the slow path serves is still there."""
        return entry.home is not None

    def lost(self) -> list[Entry]:
        """Return those who left unseen: nobody here."""
        return []

    def evict(self) -> Entry:
        """Take out and return the entry that leaves next; there must be one."""
        small = self._small
        while self.small_live >= self._small_size or not self.main_live:
            entry = small.popleft()
            if entry.home is None:
                continue
            self.small_live -= 1
            if entry.hits <= 1:
                self._remember(_mark_of(entry))
                return entry
            entry.mark = entry.hits
            self._main.append(entry)
            self.main_live += 1
            if self.main_live > self._main_size:
                break
        return self._evict_main()

    def evict_by_share(self) -> Entry:
        """As ``evict``, where another limit than the number of entries counts: small is a fifth of what is there."""
        size = self._small_size
        self._small_size = max(1, len(self) // 5)
        try:
            return self.evict()
        finally:
            self._small_size = size

    def discard(self, entry: Entry) -> None:
        """Take note that ``entry`` was removed from its store (``home`` is already ``None``)."""
        if entry.mark < 0:
            self.small_live -= 1
        else:
            self.main_live -= 1

    def sweep(self, steps: int) -> bool:
        """Give back dead slots, looking at no more than ``steps`` of each queue; return whether there is more to do.

        Begins when more than half of a queue is dead. It turns the queue: survivors come behind those who came
        meanwhile, a little later than they would have been.
        """
        more = False
        for index, (queue, live) in enumerate(((self._small, self.small_live), (self._main, self.main_live))):
            if not self._sweeping[index] and len(queue) > 2 * live + _FEWEST_DEAD:
                self._sweeping[index] = len(queue)
            taken = min(steps, self._sweeping[index], len(queue))
            self._sweeping[index] -= taken or self._sweeping[index]
            for _ in range(taken):
                entry = queue.popleft()
                if entry.home is not None:
                    queue.append(entry)
            more = more or bool(self._sweeping[index])
        return more

    def remembers(self, mark: int) -> bool:
        """Return whether the slot of ``mark`` was evicted lately."""
        return mark in self._ghost

    def living(self) -> list[Entry]:
        """Return every living entry, oldest first within each queue."""
        return [*_alive(self._small, self.small_live), *_alive(self._main, self.main_live)]

    def _evict_main(self) -> Entry:
        main = self._main
        while True:
            entry = main.popleft()
            if entry.home is None:
                continue
            frequency = min(_CAP, entry.hits - entry.mark)
            if not frequency:
                self.main_live -= 1
                return entry
            entry.mark = entry.hits - frequency + 1
            main.append(entry)

    def _remember(self, mark: int) -> None:
        """Add a slot to the ghost, and forget the oldest one beyond its size."""
        ghost, order = self._ghost, self._order
        ghost[mark] = None
        order.append(mark)
        if len(ghost) > self._ghost_size:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Forget the oldest slot of the ghost."""
        oldest = self._order.popleft()
        while oldest in self._stale:
            self._pass(oldest)
            oldest = self._order.popleft()
        self._ghost.pop(oldest, None)

    def _revive(self, mark: int) -> None:
        """Take a slot out of the ghost; its place in the order is stale from now on, and comes before any later one."""
        self.ghost_hits += 1
        del self._ghost[mark]
        self._stale[mark] = self._stale.get(mark, 0) + 1
        if len(self._order) > 2 * len(self._ghost) + _FEWEST_DEAD:
            self._compact()

    def _pass(self, mark: int) -> None:
        left = self._stale.pop(mark) - 1
        if left:
            self._stale[mark] = left

    def _compact(self) -> None:
        """Rebuild the order without its stale places."""
        order, self._order = self._order, deque()
        for mark in order:
            if mark in self._stale:
                self._pass(mark)
            else:
                self._order.append(mark)


def _mark_of(entry: Entry) -> int:
    """Return the number by which the ghost knows the slot of a living entry."""
    mark: int = hash(entry.slot) + entry.home.salt
    return mark


def _alive(queue: deque[Entry], number: int) -> Iterable[Entry]:
    """Return the living entries of ``queue``; one C call where none is dead, since the caller holds a lock."""
    return queue if len(queue) == number else [entry for entry in queue if entry.home is not None]
