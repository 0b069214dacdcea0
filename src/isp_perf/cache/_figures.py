"""What a reader of the statistics gets; imported when somebody reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isp_perf._core.departures import ABSENT
from isp_perf.cache._stats import Counters

__all__ = ["CacheStats", "CacheTally", "snapshot"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheTally:
    """What a manager has counted beside its statistics: how long loads took, and how it fared with the remote level.

    Attributes:
        load_cells: loads by their time in nanoseconds, per cell of ``isp_perf._core.histogram``.
        load_seconds: seconds spent in loaders.
        hit_cells: the local hits that were timed, as ``load_cells``; see ``CacheManager.sample_hits``.
        hit_seconds: seconds these took.
        remote_errors: failures of the remote level by kind (``CacheHealth.last_error_kind`` lists the kinds).
        distrusted_values: bytes in the remote level that were not believed, by reason; ``"skew"``: another deployment
            may need them.
        refused_fills: loads that ended after their key was invalidated, so that nothing was stored.
        oversized_values: values above the limit for the remote level.
        bypassed_calls: calls that were served past the remote level.
        lease_waits: calls that waited for the load of another process.
        outages: times the remote level went down.
        distrusted_seconds: seconds in which the local level could not be believed, for want of news.
        undelivered: removals that the remote level was not told yet.
    """

    load_cells: tuple[int, ...]
    load_seconds: float
    hit_cells: tuple[int, ...]
    hit_seconds: float
    remote_errors: Mapping[str, int] = field(default_factory=dict[str, int])
    distrusted_values: Mapping[str, int] = field(default_factory=dict[str, int])
    refused_fills: int = 0
    oversized_values: int = 0
    bypassed_calls: int = 0
    lease_waits: int = 0
    outages: int = 0
    distrusted_seconds: float = 0.0
    undelivered: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheStats:
    """A snapshot of the statistics of a manager or of one cached function; every count is exact.

    Attributes:
        hits: calls answered from the local or the remote level.
        misses: calls that found nothing, those that joined a load in progress included.
        l1_hits: hits in the local level.
        l2_hits: hits in the remote level.
        stale_hits: calls answered with a value past its ttl.
        joined: misses that shared the load of another caller.
        loads: loader calls that ended, failed ones included.
        errors: loader calls that failed.
        load_seconds: seconds spent in loaders.
        l1_size: entries in the local level.
        evictions: entries that left for want of room.
        expirations: entries that left at the end of their ttl.
        invalidations: entries that were invalidated.
        remote_errors: failures of the remote level, each counted as a miss there.
        misses_by: misses by reason: ``"absent"``, ``"expired"``, ``"evicted"``, ``"invalidated"``, ``"stale"``,
            ``"bypassed"``, ``"distrusted"``; what left long ago counts as absent.
        l1_weight_bytes: bytes that the local entries stand for; 0 without ``max_bytes``, and for one function.
        seconds_saved: time not spent in loaders: hits in the local level times the mean time of a load, by function.
        half_size_hit_ratio: an estimate of ``hit_ratio`` if the local level had half its room: without the hits of the
            entries that are hit least. ``None`` for one function, or without calls.
        double_size_hit_ratio: the same with twice the room: with the misses of what was evicted lately.
    """

    hits: int = 0
    misses: int = 0
    l1_hits: int = 0
    l2_hits: int = 0
    stale_hits: int = 0
    joined: int = 0
    loads: int = 0
    errors: int = 0
    load_seconds: float = 0.0
    l1_size: int = 0
    evictions: int = 0
    expirations: int = 0
    invalidations: int = 0
    remote_errors: int = 0
    misses_by: Mapping[str, int] = field(default_factory=dict[str, int])
    l1_weight_bytes: int = 0
    seconds_saved: float = 0.0
    half_size_hit_ratio: float | None = None
    double_size_hit_ratio: float | None = None

    @property
    def hit_ratio(self) -> float:
        """Hits per call, 0 to 1; 0.0 without calls."""
        calls = self.hits + self.misses
        return self.hits / calls if calls else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form: ``hits``, ``misses``, ``hit_rate`` (percent, one decimal), ``l1_size`` and the rest."""
        rate = round(100 * self.hits / (self.hits + self.misses), 1) if self.hits + self.misses else 0.0
        first = {"hits": self.hits, "misses": self.misses, "hit_rate": rate, "l1_size": self.l1_size}
        rest = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in first}
        return {**first, "hit_ratio": self.hit_ratio, **rest}


def snapshot(counters: Counters, *, living_hits: int, size: int, remote_errors: int = 0) -> CacheStats:
    """Return the statistics of ``counters`` and of ``size`` living entries that were hit ``living_hits`` times."""
    local = counters.retired + living_hits
    return CacheStats(
        hits=local + counters.remote_hits,
        misses=counters.misses,
        l1_hits=local,
        l2_hits=counters.remote_hits,
        stale_hits=counters.stale_hits,
        joined=counters.joined,
        loads=counters.loads,
        errors=counters.errors,
        load_seconds=counters.load_seconds,
        l1_size=size,
        evictions=counters.evicted,
        expirations=counters.expired,
        invalidations=counters.invalidated,
        remote_errors=remote_errors,
        misses_by=_reasons(counters),
        seconds_saved=local * counters.load_seconds / counters.loads if counters.loads else 0.0,
    )


def _reasons(counters: Counters) -> dict[str, int]:
    """Return misses by reason; those whose reason nobody knew are of absent entries."""
    known = dict(counters.missed)
    if absent := counters.misses - sum(known.values()):
        known[ABSENT] = absent
    return known
