"""What can be seen of a manager from outside: statistics, the hottest keys, one key explained, its health.

Entries are walked on a copy, outside the lock; the hits of one that leaves meanwhile stay with it, so the sums are
those of one moment.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from operator import attrgetter
from typing import Any, Final

from isp_perf._core.departures import EXPIRED
from isp_perf._core.eviction import Entry
from isp_perf.cache._engine import Call, Engine
from isp_perf.cache._figures import CacheStats, CacheTally, snapshot
from isp_perf.cache._keyed import Keys
from isp_perf.cache._site import Site
from isp_perf.cache._stats import Counters, count_hits
from isp_perf.cache._store import StagedEntry, Store

__all__ = ["CacheHealth", "Explanation", "HotKey", "Insight", "explain_call"]

_NANOSECONDS: Final = 1e9

BY_KEY: Final = "(by key)"
_hits: Final = attrgetter("hits")
_home: Final = attrgetter("home")


@dataclass(frozen=True, kw_only=True, slots=True)
class HotKey:
    """One of the keys that are read most.

    Attributes:
        template: key template of its function; ``"(by key)"`` for keys of the user's own.
        hits: how often it was read from the local level since it was stored.
        seconds_saved: those hits times the mean time of a load of its function.
        key: the logical key, if it was asked for; it may hold personal data, so ``repr`` leaves it out.
    """

    template: str
    hits: int
    seconds_saved: float
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What the cache knows of one key in this process; never its value.

    Attributes:
        key: the logical key; it may hold personal data, so ``repr`` leaves it out.
        level: ``"l1"``: it is in the local level; ``"loading"``: somebody loads it; ``"none"``: neither. The remote
            level is not asked.
        served: whether a call would get the local value now, without a load.
        age: seconds since it was stored, up to ttl/256 too many; ``None`` if it is not there or its ttl was drawn
            or given with it.
        ttl_left: seconds until it is no longer fresh; below 0 for a stale value; ``None`` if it is not there.
        stale_left: seconds until it is returned in no case; ``None`` if it is not there.
        tags: its tags.
        hits: how often it was read from the local level.
        load_seconds: how long its load took; ``None`` if that was not kept.
        last_miss: why the last read that found nothing found nothing: ``"absent"``, ``"expired"``, ``"evicted"``,
            ``"invalidated"``, ``"stale"``, ``"bypassed"`` or ``"distrusted"``; of the last 100,000 or so that left.
    """

    key: str = field(repr=False)
    level: str = "none"
    served: bool = False
    age: float | None = None
    ttl_left: float | None = None
    stale_left: float | None = None
    tags: tuple[str, ...] = ()
    hits: int = 0
    load_seconds: float | None = None
    last_miss: str = "absent"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheHealth:
    """Whether a manager can do its work.

    Attributes:
        status: ``"healthy"``; ``"degraded"``: the remote level is left alone after a failure, or has not heard of every
            invalidation yet. A degraded cache answers every call.
        l1_size: entries in the local level.
        l1_weight_bytes: bytes they stand for; ``None`` without ``max_bytes``.
        remote: ``"none"``, ``"up"`` or ``"down"``.
        remote_errors: failures of the remote level since the start.
        undelivered: whether invalidations wait for the remote level to come back.
        l2: ``"none"``, ``"up"``, ``"down"``, or ``"recovering"``: it answers, and is told first what it missed.
        l1_trusted: whether the local level may be believed now; without a remote level always.
        journal: removals that the remote level was not told yet.
        last_error_kind: the kind of the last failure: refused, timeout, reset, protocol, loading, readonly, oom,
            masterdown, misconf, auth, noperm, maxclients, busy, moved or other; ``None``: none so far.
        authenticated: whether values in the remote level are sealed with a secret.
        channel: how changes by others are heard of: ``"tracking"`` or ``"pubsub"``; ``"none"``: nothing that is shared
            is kept in the local level.
    """

    status: str
    l1_size: int
    l1_weight_bytes: int | None
    remote: str
    remote_errors: int
    undelivered: bool
    l2: str = "none"
    l1_trusted: bool = True
    journal: int = 0
    last_error_kind: str | None = None
    authenticated: bool = False
    channel: str = "none"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Insight:
    """Reads one manager's figures.

    Args:
        engine: its levels.
        keys: its operations by key.
    """

    def __init__(self, engine: Engine, keys: Keys) -> None:
        self._engine = engine
        self._keys = keys

    def stats(self) -> CacheStats:
        """Return the statistics of the manager."""
        local, second = self._engine.local, self._engine.second
        errors = 0 if second is None else second.errors
        with local.lock:
            entries = local.living_locked()
            counted = snapshot(local.counters, living_hits=0, size=len(entries), remote_errors=errors)
            weight, capacity, ghost_hits = local.weight, local.capacity, local.ghost_hits
        walked = _Walked(entries)
        stats = replace(
            counted,
            hits=counted.hits + walked.hits,
            l1_hits=counted.l1_hits + walked.hits,
            l1_weight_bytes=weight or 0,
            seconds_saved=self._saved(walked),
        )
        calls = stats.hits + stats.misses
        if not calls:
            return stats
        return replace(
            stats,
            half_size_hit_ratio=stats.hit_ratio * walked.share_of_hottest(max(capacity, stats.l1_size) // 2),
            double_size_hit_ratio=min(1.0, (stats.hits + ghost_hits) / calls),
        )

    def functions(self) -> dict[str, CacheStats]:
        """Return the statistics of the living functions, by their template."""
        local = self._engine.local
        sites = [site for site in list(self._engine.sites) if isinstance(site, Site)]
        with local.lock:
            entries = local.living_locked()
            frozen = {site: site.counters.copy() for site in sites}
        walked = _Walked(entries)
        return {
            site.template: snapshot(
                frozen[site], living_hits=walked.hits_of.get(site, 0), size=walked.sizes.get(site, 0)
            )
            for site in sorted(sites, key=attrgetter("template"))
        }

    def _saved(self, walked: "_Walked") -> float:
        """Return, summed over the functions, hits times the mean time of a load."""
        owners: list[Any] = [*list(self._engine.sites), self._keys.store.owner]
        return float(
            sum(
                _mean_load(owner.counters) * (owner.counters.retired + walked.hits_of.get(owner, 0))
                for owner in {*owners, *walked.hits_of}
            )
        )

    def tally(self) -> CacheTally:
        """Return what is counted beside the statistics."""
        local, second = self._engine.local, self._engine.second
        with local.lock:
            local.living_locked()
            hit_times = self._engine.hit_times
            counted = CacheTally(
                load_cells=tuple(local.counters.load_cells or ()),
                load_seconds=local.counters.load_seconds,
                hit_cells=tuple(hit_times.cells),
                hit_seconds=hit_times.nanoseconds / _NANOSECONDS,
            )
            lost = 0.0 if second is None else second.trust.lost_seconds
        if second is None:
            return counted
        kept = second.tally
        return replace(
            counted,
            remote_errors=dict(kept.errors),
            distrusted_values={**kept.rejected, "skew": kept.skew},
            refused_fills=kept.fill_refused,
            oversized_values=kept.too_large,
            bypassed_calls=kept.past,
            lease_waits=kept.waits,
            outages=kept.outages,
            distrusted_seconds=lost,
            undelivered=len(second.journal),
        )

    def hot_keys(self, number: int, *, keys: bool) -> list[HotKey]:
        """Return the keys that were read most, hottest first."""
        return [_hot_key(entry, home, keys=keys) for entry, home in self.hottest(number)]

    def hottest(self, number: int) -> list[tuple[Entry, Store]]:
        """Return the entries that were read most, with the stores they live in."""
        with self._engine.local.lock:
            entries = self._engine.local.living_locked()
        found = [(entry, entry.home) for entry in nlargest(number, entries, key=_hits)]
        return [(entry, home) for entry, home in found if home is not None]

    def explain(self, key: str) -> Explanation:
        """Return what is known of a logical key."""
        local, store = self._engine.local, self._keys.store
        with local.lock:
            entry = local.index_locked().get(key)
            if entry is not None:
                return _explained(self._engine, entry.home, entry.slot, key=key)
            return _explained(self._engine, store, (key,), key=key)

    def health(self) -> CacheHealth:
        """Return the state of both levels."""
        local, second = self._engine.local, self._engine.second
        health = CacheHealth(
            status="healthy",
            l1_size=len(local),
            l1_weight_bytes=local.weight,
            remote="none",
            remote_errors=0,
            undelivered=False,
        )
        if second is None:
            return health
        left = len(second.journal)
        return replace(
            health,
            status="healthy" if second.ready and not left else "degraded",
            remote="up" if second.ready else "down",
            remote_errors=second.errors,
            undelivered=left > 0,
            l2=second.condition.state,
            l1_trusted=second.trust.given,
            journal=left,
            last_error_kind=second.condition.kind,
            authenticated=second.sealer.authenticated,
            channel=second.channel,
        )


class _Walked:
    """Sums over entries.

    Args:
        entries: those of one moment.

    Attributes:
        hits: of all.
        hits_of: hits by owner of the store.
        sizes: number of entries by owner of the store.
    """

    __slots__ = ("_numbers", "hits", "hits_of", "sizes")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.hits = count_hits(entries)
        self.sizes: dict[Any, int] = {}
        self.hits_of: dict[Any, int] = {}
        stores: Counter[Any] = Counter(map(_home, entries))
        stores.pop(None, None)  # it has left meanwhile
        for store, number in stores.items():
            self.sizes[store.owner] = self.sizes.get(store.owner, 0) + number
        self._numbers: Counter[int] = Counter(map(_hits, entries))
        for entry in filter(_hits, entries):
            if (home := entry.home) is not None:
                self.hits_of[home.owner] = self.hits_of.get(home.owner, 0) + entry.hits

    def share_of_hottest(self, number: int) -> float:
        """Return which share of the hits the ``number`` hottest entries have; 1.0 without hits."""
        found, left = 0, number
        for hits in sorted(self._numbers, reverse=True):
            some = min(left, self._numbers[hits])
            found += some * hits
            left -= some
        return found / self.hits if self.hits else 1.0


def _mean_load(counters: Counters) -> float:
    return counters.load_seconds / counters.loads if counters.loads else 0.0


def _hot_key(entry: Entry, home: Store, *, keys: bool) -> HotKey:
    owner: Any = home.owner
    return HotKey(
        template=getattr(owner, "template", BY_KEY),
        hits=entry.hits,
        seconds_saved=entry.hits * _mean_load(owner.counters),
        key=owner.key_of(entry.slot, home.token) if keys else None,
    )


def _explained(engine: Engine, store: Store, slot: Any, *, key: str) -> Explanation:
    local = engine.local
    entry = store.find(slot) or local.keyed.get((key,))
    last_miss = local.departures.last(store.mark(slot))
    if entry is None:
        level = "loading" if slot in store.flights else "none"
        return Explanation(key=key, level=level, last_miss=local.reason_locked(store, slot))
    known = local.describe_locked(entry)
    if known.stale_left <= 0:
        return Explanation(key=key, last_miss=EXPIRED)
    own = entry.home.by_key and not isinstance(entry, StagedEntry)
    return Explanation(
        key=key,
        level="l1",
        served=known.served,
        age=None if own else known.age,
        ttl_left=known.left,
        stale_left=known.stale_left,
        tags=known.tags,
        hits=known.hits,
        load_seconds=known.load_seconds,
        last_miss=last_miss,
    )


def explain_call(engine: Engine, call: Callable[[], Call]) -> Explanation:
    """Return what is known of the key of ``call``."""
    asked = call()
    with engine.local.lock:
        return _explained(engine, asked.store, asked.slot, key=asked.key())
