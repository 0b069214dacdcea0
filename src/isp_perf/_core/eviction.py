"""S3-FIFO with hits that are counted now and folded later.

A hit is ``entry.hits += 1``: nothing else may stand on that path. The textbook form caps a counter at each hit; here
the queue scan folds what was counted since its last visit, ``frequency = min(3, frequency + hits - mark)``, which
evicts the same entries in the same order. Small queue 20 % of the capacity, ghost twice the capacity, promotion out of
the small queue from the second hit on, main queue re-inserts with the frequency less one.
Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.

An entry of the small queue is looked at once, when it leaves, so it needs no frequency: -1 marks it.
Entries that were removed otherwise stay in their queue as dead slots (``home is None``) and are skipped.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Entry", "EvictionQueue"]

_CAP: Final = 3
_IN_SMALL: Final = -1
_FEWEST_DEAD: Final = 64


class Entry:
    """One value of the local level.

    Attributes:
        value: what the loader returned.
        hits: how often it was served; written without a lock by the hit path.
        home: the store it lives in, whose ``salt`` tells its slots from those of others; ``None`` before it is inserted
            and once it was removed.
        slot: its key inside the store.
        due: the moment of expiry in seconds of the manager's clock, or a little before.
        mark: ``hits`` when the queue scan last came by.
        frequency: -1 in the small queue, 0 to 3 in the main queue.
    """

    __slots__ = ("due", "frequency", "hits", "home", "mark", "slot", "value")

    due: float
    frequency: int
    hits: int
    mark: int
    slot: Any
    value: Any

    def __init__(self, value: Any, slot: Any, due: float) -> None:
        self.value = value
        self.home: Any = None
        self.slot = slot
        self.due = due
        self.hits = 0
        self.mark = 0
        self.frequency = _IN_SMALL


class EvictionQueue:
    """Decides which entry leaves when a new one comes.

    Args:
        capacity: the largest number of living entries; >= 1.
        drop: called with each entry that is to leave; it removes the entry from its store.
    """

    __slots__ = (
        "_drop",
        "_ghost",
        "_main",
        "_main_size",
        "_order",
        "_serial",
        "_small",
        "_small_size",
        "capacity",
        "ghost_hits",
        "main_live",
        "small_live",
    )

    def __init__(self, capacity: int, drop: Callable[[Entry], None]) -> None:
        self.capacity = capacity
        self._small_size = max(1, capacity // 5)
        self._main_size = max(1, capacity - self._small_size)
        self._drop = drop
        self.clear()

    def clear(self) -> None:
        """Forget every entry and every ghost; ``drop`` is not called."""
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._ghost: dict[int, int] = {}
        self._order: deque[int] = deque()
        self._serial = 0
        self.small_live = self.main_live = self.ghost_hits = 0

    def __len__(self) -> int:
        return self.small_live + self.main_live

    def insert(self, entry: Entry) -> None:
        """Take in a new entry; others leave until there is room."""
        while self.small_live + self.main_live >= self.capacity:
            if self.small_live >= self._small_size or not self.main_live:
                self._evict_small()
            else:
                self._evict_main()
        ghost = self._ghost
        if ghost and ghost.pop(hash(entry.slot) ^ entry.home.salt, None) is not None:
            self.ghost_hits += 1
            entry.frequency = 0
            self._main.append(entry)
            self.main_live += 1
        else:
            self._small.append(entry)
            self.small_live += 1

    def discard(self, entry: Entry) -> None:
        """Take note that ``entry`` was removed from its store (``home`` is already ``None``)."""
        if entry.frequency == _IN_SMALL:
            self.small_live -= 1
            if len(self._small) > 2 * self.small_live + _FEWEST_DEAD:
                self._small = deque(other for other in self._small if other.home is not None)
        else:
            self.main_live -= 1
            if len(self._main) > 2 * self.main_live + _FEWEST_DEAD:
                self._main = deque(other for other in self._main if other.home is not None)

    def remembers(self, mark: int) -> bool:
        """Return whether the slot of ``mark`` was evicted lately."""
        return mark in self._ghost

    def living(self) -> list[Entry]:
        """Return every living entry, oldest first within each queue."""
        return [entry for queue in (self._small, self._main) for entry in queue if entry.home is not None]

    def _evict_small(self) -> None:
        while True:
            entry = self._small.popleft()
            if entry.home is not None:
                break
        self.small_live -= 1
        if entry.hits > 1:
            entry.mark = entry.hits
            entry.frequency = 0
            self._main.append(entry)
            self.main_live += 1
            if self.main_live > self._main_size:
                self._evict_main()
        else:
            self._remember(hash(entry.slot) ^ entry.home.salt)
            self._drop(entry)

    def _evict_main(self) -> None:
        while True:
            entry = self._main.popleft()
            if entry.home is None:
                continue
            hits = entry.hits
            frequency = min(_CAP, entry.frequency + hits - entry.mark)
            if not frequency:
                break
            entry.mark = hits
            entry.frequency = frequency - 1
            self._main.append(entry)
        self.main_live -= 1
        self._drop(entry)

    def _remember(self, key: int) -> None:
        """Add a key to the ghost; ``_order`` may hold keys that came back since, which the serial number tells."""
        ghost, order = self._ghost, self._order
        ghost[key] = self._serial + len(order)
        order.append(key)
        while len(ghost) > 2 * self.capacity:
            oldest = order.popleft()
            if ghost.get(oldest) == self._serial:
                del ghost[oldest]
            self._serial += 1
        if len(order) > 2 * len(ghost) + _FEWEST_DEAD:
            self._compact()

    def _compact(self) -> None:
        """Rebuild ``_order`` without the keys that left the ghost."""
        self._order = deque(sorted(self._ghost, key=self._ghost.__getitem__))
        self._serial = 0
        self._ghost = {key: serial for serial, key in enumerate(self._order)}
