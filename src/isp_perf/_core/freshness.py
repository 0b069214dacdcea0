"""What age an entry has reached, and when it reaches the next one."""

from enum import Enum
from math import log
from typing import Final, NamedTuple

__all__ = ["AGEING", "EXPIRED", "FRESH", "LAST_RESORT", "Age", "Life", "age_at", "plan_life", "xfetch_after"]

_SHORTEST_LOAD: Final = 0.001
_LONGEST_PAUSE: Final = 1.0
_PAUSES_PER_TTL: Final = 10


class Age(Enum):
    """The ages of an entry, in order."""

    FRESH = "fresh"
    AGEING = "ageing"
    LAST_RESORT = "last resort"
    EXPIRED = "expired"


FRESH: Final = Age.FRESH
"""Returned without question."""
AGEING: Final = Age.AGEING
"""Returned while one caller refreshes it in the background: before its end (early refresh) or after it (stale)."""
LAST_RESORT: Final = Age.LAST_RESORT
"""Returned only if the load fails."""
EXPIRED: Final = Age.EXPIRED
"""Never returned."""


class Life(NamedTuple):
    """The moments of one entry, in seconds of one clock.

    Attributes:
        refresh_at: early refresh begins; never after ``fresh_until``.
        fresh_until: end of the ttl.
        stale_until: end of ``stale_while_revalidate``.
        error_until: end of ``stale_if_error``.
        pause: seconds between two attempts after a failed one.
    """

    refresh_at: float
    fresh_until: float
    stale_until: float
    error_until: float
    pause: float

    @property
    def until(self) -> float:
        """The moment at which nothing may be returned any more."""
        return max(self.stale_until, self.error_until)


def plan_life(now: float, *, ttl: float, refresh_after: float, revalidate: float, on_error: float) -> Life:
    """Return the life of an entry that is stored ``now``; durations in seconds (RFC 5861 for the stale ones)."""
    fresh_until = now + ttl
    return Life(
        now + min(ttl, max(0.0, refresh_after)),
        fresh_until,
        fresh_until + revalidate,
        fresh_until + on_error,
        min(_LONGEST_PAUSE, ttl / _PAUSES_PER_TTL),
    )


def xfetch_after(ttl: float, load_seconds: float, chance: float) -> float:
    """Return after how many seconds one caller refreshes early.

    One draw per entry, from the time its load took (at least 1 ms), so that a hit costs nothing. Source: Vattani,
    Chierichetti, Lowenstein, "Optimal probabilistic cache stampede prevention", VLDB 2015; there every read draws.

    Args:
        ttl: seconds of freshness.
        load_seconds: how long the load took.
        chance: a uniform draw in (0, 1].
    """
    return ttl + max(_SHORTEST_LOAD, load_seconds) * log(chance)


def age_at(now: float, life: Life) -> Age:
    """Return the age that an entry of this ``life`` has at ``now``."""
    if now < life.refresh_at:
        return FRESH
    if now < life.fresh_until or now < life.stale_until:
        return AGEING
    return LAST_RESORT if now < life.error_until else EXPIRED
