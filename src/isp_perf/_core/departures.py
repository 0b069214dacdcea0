"""Why entries left, remembered for a while, so that a miss can be told from another.

Two generations of at most ``size`` marks each: when the younger is full it becomes the older, and the older is
forgotten. Nothing has to be searched or moved, and memory is bounded whatever happens.
"""

from collections.abc import Iterable
from typing import Final

__all__ = ["ABSENT", "BYPASSED", "DISTRUSTED", "EVICTED", "EXPIRED", "INVALIDATED", "STALE", "Departures"]

ABSENT: Final = "absent"
"""It was never there, or left so long ago that nobody remembers."""
EVICTED: Final = "evicted"
"""It left for want of room."""
EXPIRED: Final = "expired"
"""Its ttl ended."""
INVALIDATED: Final = "invalidated"
"""It was invalidated, cleared or lost with the channel of invalidations."""
STALE: Final = "stale"
"""It is there, past its ttl, and may stand in for an error only."""
BYPASSED: Final = "bypassed"
"""The caller asked not to be answered from the cache."""
DISTRUSTED: Final = "distrusted"
"""It is there, and nobody knows whether it is still true."""


class Departures:
    """The last reasons, by mark (a hash of store and slot).

    Args:
        size: marks per generation, >= 1.

    Attributes:
        any: whether anything was ever noted.
    """

    __slots__ = ("_old", "_size", "_young", "any")

    any: bool

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[int, str] = {}
        self._old: dict[int, str] = {}
        self.any = False

    def note(self, mark: int, reason: str) -> None:
        """Remember why the entry of ``mark`` left."""
        young = self._young
        young[mark] = reason
        self.any = True
        if len(young) >= self._size:
            self._old, self._young = young, {}

    def note_all(self, marks: Iterable[int], reason: str) -> None:
        """Remember the same reason for many."""
        for mark in marks:
            self.note(mark, reason)

    def last(self, mark: int) -> str:
        """Return why the entry of ``mark`` left last."""
        return self._young.get(mark) or self._old.get(mark, ABSENT)

    def forget(self, mark: int) -> None:
        """Let the next miss of ``mark`` be one of an absent entry."""
        self._young.pop(mark, None)
        self._old.pop(mark, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
