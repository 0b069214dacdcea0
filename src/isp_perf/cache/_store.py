"""Where one function's entries are, and what an entry with more than a ttl has besides."""

from itertools import count
from typing import Any, Final, Protocol

from isp_perf._core.eviction import Entry
from isp_perf._core.freshness import Life
from isp_perf._runtime.flights import Flight
from isp_perf.cache._config import CachePolicy
from isp_perf.cache._stats import Counters
from isp_perf.typing import Clock

__all__ = ["Keyed", "StagedEntry", "Store"]

_numbers: Final = count(1)
_GOLDEN: Final = 0x9E3779B97F4A7C15  # consecutive numbers times this differ in every part of 60 bits
_SALT_BITS: Final = (1 << 60) - 1


class Keyed(Protocol):
    """The owner of a store: a decorated function, or the manager's own by-key store."""

    counters: Counters
    policy: CachePolicy

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
        born: when it was stored, in seconds of the manager's clock.
        life: its moments.
        load_seconds: how long its load took.
        tags: its tags.
        etag: what the loader keeps beside the value.
        retry_at: after a failed refresh, the moment of the next attempt.
    """

    __slots__ = ("born", "etag", "life", "load_seconds", "retry_at", "tags")

    born: float
    life: Life
    load_seconds: float
    retry_at: float

    def __init__(self, value: Any, slot: Any, due: float) -> None:
        super().__init__(value, slot, due)
        self.retry_at = float("-inf")
        self.load_seconds = 0.0
        self.etag: Any = None
        self.tags: frozenset[str] = frozenset()


class Store:
    """The entries and flights of one function, or of one instance's method.

    Attributes:
        hot: slot -> entry that the wrapper may return.
        cold: slot -> entry that the slow path looks at first.
        aside: what would be hot, while the level is suspended; empty otherwise.
        shelf: ``hot``, or ``aside`` while the level is suspended: where an entry that may be hot is.
        flights: slot -> attached flight.
        token: what tells the keys of this instance from those of others.
        salt: what tells the marks of this store (hash of a slot, xor salt) from those of others.
        level: the local level that has heard of this store.
        by_key: whether its slots are one-element tuples of keys of the user's own.
    """

    __slots__ = ("__weakref__", "aside", "by_key", "cold", "flights", "hot", "level", "owner", "salt", "shelf", "token")

    by_key: bool
    owner: Keyed
    salt: int
    token: str

    def __init__(self, owner: Keyed, token: str, *, by_key: bool = False) -> None:
        self.owner = owner
        self.by_key = by_key
        self.token = token
        self.salt = next(_numbers) * _GOLDEN & _SALT_BITS
        self.hot: dict[Any, Entry] = {}
        self.cold: dict[Any, Entry] = {}
        self.aside: dict[Any, Entry] = {}
        self.shelf = self.hot
        self.flights: dict[Any, Flight] = {}
        self.level: object = None

    def find(self, slot: Any) -> Entry | None:
        """Return the entry in ``slot``, whatever its age."""
        return self.shelf.get(slot) or self.cold.get(slot)

    def mark(self, slot: Any) -> int:
        """Return the number by which ghosts and departures know ``slot`` of this store."""
        return hash(slot) ^ self.salt

    def drop(self, entry: Entry) -> None:
        """Take ``entry`` out of its place."""
        place = self.shelf if self.shelf.get(entry.slot) is entry else self.cold
        if place.get(entry.slot) is entry:
            del place[entry.slot]

    def entries(self) -> list[Entry]:
        """Return every entry."""
        return [*self.shelf.values(), *self.cold.values()]
