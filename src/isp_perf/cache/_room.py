"""Who decides which entry leaves: our own queue, by number or by weight, or a cachetools cache of the user's."""

from collections.abc import Callable, MutableMapping
from typing import Any, Final

from isp_perf._core.eviction import Entry, EvictionQueue
from isp_perf._core.weights import ENTRY_BYTES, estimated_bytes
from isp_perf.cache._store import WeighedEntry

__all__ = ["Borrowed", "Weighed", "room_for", "weigh"]

_LARGEST_SHARE: Final = 8
_SLACK: Final = 64


def room_for(
    max_entries: int,
    *,
    max_bytes: int | None,
    l1: MutableMapping[Any, Any] | None,
    key_of: Callable[[Entry], str],
) -> EvictionQueue:
    """Return the room that the settings describe; see ``LocalLevel.configure_locked``."""
    if l1 is not None:
        return Borrowed(l1, key_of)
    return EvictionQueue(max_entries) if max_bytes is None else Weighed(max_entries, max_bytes)


def weigh(entry: WeighedEntry, weight: int | None) -> None:
    """Let an entry stand for the bytes of its encoded value, or for an estimate; what an entry costs comes on top."""
    entry.weight = ENTRY_BYTES + (estimated_bytes((entry.slot, entry.value)) if weight is None else weight)


class Weighed(EvictionQueue):
    """S3-FIFO with a limit in bytes beside that in entries.

    Args:
        capacity: the largest number of entries.
        max_bytes: the largest sum of weights.
        largest_share: an entry heavier than ``max_bytes`` through this is not kept.
    """

    __slots__ = ("_heaviest", "max_bytes", "weight")

    max_bytes: int
    weight: int

    def __init__(self, capacity: int, max_bytes: int, *, largest_share: int = _LARGEST_SHARE) -> None:
        super().__init__(capacity)
        self.max_bytes = max_bytes
        self._heaviest = max_bytes // largest_share
        self.weight = 0

    def admit(self, entry: Entry) -> list[Entry] | None:
        """Take in an entry unless it is too heavy for the room."""
        weight = _weight(entry)
        if weight > self._heaviest:
            return None
        leaving: list[Entry] = []
        while len(self) and self.weight + weight > self.max_bytes:
            leaving.append(self.evict_by_share())
            self.weight -= _weight(leaving[-1])
        self.weight += weight
        last = self.insert(entry)
        if last is not None:
            self.weight -= _weight(last)
            leaving.append(last)
        return leaving

    def discard(self, entry: Entry) -> None:
        """Take note that ``entry`` was removed."""
        super().discard(entry)
        self.weight -= _weight(entry)


class Borrowed(EvictionQueue):
    """A ``cachetools.Cache`` of the user's as the room: its eviction, its order, its sizes; our queues stay empty.

    It holds logical key -> value. What it dropped shows when it is asked for, or when it holds far less than we know.

    Args:
        cache: the user's object, which is cleared.
        key_of: the logical key of a living entry.
    """

    __slots__ = ("_cache", "_key_of", "_known")

    def __init__(self, cache: MutableMapping[Any, Any], key_of: Callable[[Entry], str]) -> None:
        super().__init__(1)
        self._cache = cache
        self._key_of = key_of
        self._known: dict[Entry, str] = {}
        cache.clear()

    def __len__(self) -> int:
        return len(self._cache)

    def admit(self, entry: Entry) -> list[Entry] | None:
        """Take in an entry unless the user's cache finds it too large."""
        key = self._key_of(entry)
        try:
            self._cache[key] = entry.value
        except ValueError:
            return None
        self._known[entry] = key
        return self.lost() if len(self._known) > len(self._cache) + len(self._cache) // 4 + _SLACK else []

    def touch(self, entry: Entry) -> bool:
        """Read an entry where it is, so that its order is kept there; ``False`` if it was dropped."""
        try:
            entry.value = self._cache[self._known[entry]]
        except KeyError:
            self._known.pop(entry, None)
            return False
        return True

    def discard(self, entry: Entry) -> None:
        """Take an entry out of the user's cache."""
        key = self._known.pop(entry, None)
        if key is not None:
            self._cache.pop(key, None)

    def living(self) -> list[Entry]:
        """Return every entry that the user's cache still has."""
        return [entry for entry, key in self._known.items() if key in self._cache]

    def lost(self) -> list[Entry]:
        """Return the entries that the user's cache has dropped, and forget them."""
        lost = [entry for entry, key in self._known.items() if key not in self._cache]
        for entry in lost:
            del self._known[entry]
        return lost


def _weight(entry: Entry) -> int:
    return entry.weight if isinstance(entry, WeighedEntry) else 0
