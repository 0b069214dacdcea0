"""Values that are not fresh, errors that are kept: what may be returned now, and what is stored for later."""

from os import urandom
from typing import Any, Final

from isp_perf._core.eviction import Entry
from isp_perf._core.freshness import AGEING, FRESH, Life, age_at, plan_life, xfetch_after
from isp_perf._runtime.drive import Failure
from isp_perf._runtime.flights import Flight, own_copy
from isp_perf.cache._config import CachePolicy
from isp_perf.cache._engine import Call, Engine
from isp_perf.cache._local import LocalLevel, StagedEntry, Store

__all__ = [
    "MISSING",
    "CachedError",
    "age_of",
    "draw",
    "handed_out",
    "insert_locked",
    "is_fresh",
    "keep_etag",
    "life_of",
    "lifetime",
    "local_ttl",
    "opened",
    "stale_value_locked",
    "store_error_locked",
]

MISSING: Final = object()
_DIGITS: Final = 53  # of a float


class CachedError:
    """An error that is raised again from the cache."""

    __slots__ = ("failure",)

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


def draw() -> float:
    """Return a random number, 0 <= x < 1; what ``random.SystemRandom`` does, without importing it."""
    return (int.from_bytes(urandom(7)) >> (56 - _DIGITS)) * 2.0**-_DIGITS


def handed_out(policy: CachePolicy, value: Any) -> Any:
    """Return ``value`` as a caller under ``policy`` gets it."""
    if policy.isolate == "share":
        return value
    from isp_perf.cache._copies import own

    return own(value)


def opened(value: Any) -> Any:
    """Return what an entry's value means to a caller: the value, or the failure to raise."""
    return own_copy(value.failure) if value.__class__ is CachedError else value


def life_of(policy: CachePolicy, now: float, *, ttl: float, load_seconds: float) -> Life:
    """Return the life of a value that is stored ``now`` for ``ttl`` seconds."""
    early = policy.early_refresh
    if early == "xfetch":
        after = xfetch_after(ttl, load_seconds, 1.0 - draw())
    else:
        after = ttl if isinstance(early, str) else early * ttl
    revalidate, on_error = policy.stale_seconds
    return plan_life(now, ttl=ttl, refresh_after=after, revalidate=revalidate, on_error=on_error)


def lifetime(policy: CachePolicy, value: Any) -> float:
    """Return for how many seconds ``value`` is to be kept; 0 for not at all."""
    ttl = float(policy.cache_none) if value is None and policy.cache_none is not True else policy.fresh
    if policy.when is not None and not policy.when(value):
        return 0.0
    return ttl * (1 - policy.jitter * draw()) if policy.jitter else ttl


def local_ttl(policy: CachePolicy, ttl: float) -> float:
    """Return how long the local level keeps what the remote one keeps for ``ttl`` seconds."""
    return ttl if policy.local is None else min(ttl, policy.local)


def is_fresh(local: LocalLevel, entry: Entry) -> bool:
    """Return whether the entry holds a value within its ttl."""
    end = entry.life.fresh_until if isinstance(entry, StagedEntry) else entry.due
    return local.clock() < end and local.serves_locked(entry) and entry.value.__class__ is not CachedError


def age_of(engine: Engine, call: Call, entry: Entry) -> tuple[bool, bool]:
    """Return whether the entry may be returned now, and whether it is to be refreshed in the background."""
    if not isinstance(entry, StagedEntry):
        return True, False
    now = engine.local.clock()
    age = age_at(now, entry.life)
    if age is FRESH:
        return True, False
    waits = now < entry.retry_at
    served = waits or age is AGEING
    if served and now >= entry.life.fresh_until:
        _count_stale(engine, call.store)
    return served, not waits and age is AGEING and call.slot not in call.store.flights


def stale_value_locked(engine: Engine, call: Call, flight: Flight, *, failed: bool) -> Any:
    """Return the value that stands in for a load that failed or takes too long, or ``MISSING``."""
    entry = call.store.cold.get(call.slot)
    now = engine.local.clock()
    if not flight.attached or not isinstance(entry, StagedEntry) or engine.local.distrusted:
        return MISSING
    if failed:
        entry.retry_at = now + entry.life.pause
    if now >= (entry.life.error_until if failed else entry.life.until):
        return MISSING
    entry.hits += 1
    _count_stale(engine, call.store)
    return entry.value


def store_error_locked(engine: Engine, call: Call, failure: Failure) -> None:
    """Keep an error that the policy says to keep."""
    for kind, ttl in call.source.policy.cache_errors.items():
        if isinstance(failure.error, kind) and ttl > 0:
            value = CachedError(own_copy(failure))
            engine.local.insert_locked(call.store, call.slot, value, ttl=float(ttl), native=False)
            return


def _count_stale(engine: Engine, store: Store) -> None:
    engine.local.counters.stale_hits += 1
    store.owner.counters.stale_hits += 1


def keep_etag(call: Call, flight: Flight) -> None:
    """Keep what the loader said beside the value."""
    entry = call.store.find(call.slot)
    if flight.filling is not None and isinstance(entry, StagedEntry):
        entry.etag = flight.filling.etag


def insert_locked(
    local: LocalLevel,
    call: Call,
    *,
    value: Any,
    ttl: float,
    load_seconds: float,
    tags: frozenset[str],
    told: bool = False,
    weight: int | None = None,
) -> None:
    """Keep a value in the local level, in the form that its policy needs.

    ``told``: its loader had a say in it; ``weight``: bytes of the encoded value, where it was encoded.
    """
    policy = call.source.policy
    if not policy.staged and not tags and not told:
        local.insert_locked(call.store, call.slot, value, ttl=ttl, native=call.native, weight=weight)
        return
    now = local.clock()
    life = life_of(policy, now, ttl=ttl, load_seconds=load_seconds)
    entry = StagedEntry.make(value, call.slot, life.refresh_at)
    entry.life, entry.tags, entry.born, entry.load_seconds = life, tags, now, load_seconds
    local.insert_staged_locked(call.store, entry, native=call.native, weight=weight)
