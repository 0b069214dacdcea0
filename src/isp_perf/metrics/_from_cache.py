"""The families of the cache, read from every ``CacheManager`` that is alive."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from isp_perf.metrics._snapshot import Column, Key, Readings, Snapshot, Spec
from isp_perf.metrics._sources import Feature

if TYPE_CHECKING:
    from isp_perf.cache import CacheManager

__all__ = ["CACHE", "DERIVED", "derive"]

_NANOSECONDS = 1e9
_GETS = Spec(
    "isp_cache_gets_total",
    "counter",
    "Reads of a cache by the tier that answered (l1, l2; none for a miss) and the result.",
    ("cache", "tier", "result"),
)
_LOADS = Spec("isp_cache_loads_total", "counter", "Loader calls that ended.", ("cache", "result"))
_LOAD_SECONDS = Spec("isp_cache_load_seconds_total", "counter", "Time spent in loaders.", ("cache",))
_WAITERS = Spec("isp_cache_coalesced_waiters_total", "counter", "Misses that shared another caller's load.", ("cache",))
_EVICTIONS = Spec("isp_cache_evictions_total", "counter", "Entries that left the local level.", ("cache", "cause"))
_INVALIDATIONS = Spec("isp_cache_invalidations_total", "counter", "Entries that were invalidated.", ("cache",))
_REMOTE_ERRORS = Spec("isp_cache_remote_errors_total", "counter", "Failures of the remote level.", ("cache",))
_ENTRIES = Spec("isp_cache_entries", "gauge", "Entries in the local level.", ("cache",))
_FUNCTION = ("cache", "key")
_FUNCTION_GETS = Spec(
    "isp_cache_function_gets_total",
    "counter",
    "Calls of a cached function, named by its key template, by their result.",
    (*_FUNCTION, "result"),
)
_FUNCTION_LOADS = Spec("isp_cache_function_loads_total", "counter", "Loads of a cached function.", _FUNCTION)
_FUNCTION_SECONDS = Spec(
    "isp_cache_function_load_seconds_total", "counter", "Time spent in the loads of a cached function.", _FUNCTION
)
_HIT_RATIO = Spec("isp_cache_hit_ratio", "gauge", "Hits over reads since the start (0-1).", ("cache",))
_SAVED = Spec(
    "isp_cache_saved_seconds",
    "gauge",
    "Hits times the mean time of a load, summed over the functions: the time not spent.",
    ("cache",),
)
_MISSES = Spec("isp_cache_misses_total", "counter", "Misses of a cache by their reason.", ("cache", "reason"))
_STALE = Spec("isp_cache_stale_hits_total", "counter", "Reads answered with a value past its ttl.", ("cache",))
_WEIGHT = Spec("isp_cache_weight_bytes", "gauge", "Bytes that the local entries stand for, if counted.", ("cache",))
_HALF = Spec(
    "isp_cache_half_size_hit_ratio",
    "gauge",
    "Estimated hit ratio with half the room in the local level (0-1).",
    ("cache",),
    merge="mean",
)
_DOUBLE = Spec(
    "isp_cache_double_size_hit_ratio",
    "gauge",
    "Estimated hit ratio with twice the room in the local level (0-1).",
    ("cache",),
    merge="mean",
)
_LOAD_DURATION = Spec("isp_cache_load_duration_seconds", "histogram", "Time of a load.", ("cache",))
_GET_DURATION = Spec(
    "isp_cache_get_duration_seconds",
    "histogram",
    "Time of sampled local hits, as the wrapper of a cached function sees them.",
    ("cache", "tier"),
)
_ERRORS_BY_KIND = Spec(
    "isp_cache_remote_failures_total", "counter", "Failures of the remote level by kind.", ("cache", "kind")
)
_DISTRUSTED = Spec(
    "isp_cache_distrusted_values_total",
    "counter",
    "Values in the remote level that were not believed, by reason.",
    ("cache", "reason"),
)
_REFUSED_FILLS = Spec(
    "isp_cache_refused_fills_total", "counter", "Loads not stored: their key was invalidated meanwhile.", ("cache",)
)
_OVERSIZED = Spec(
    "isp_cache_oversized_values_total", "counter", "Values above the limit for the remote level.", ("cache",)
)
_BYPASSED = Spec("isp_cache_remote_bypassed_total", "counter", "Calls served past the remote level.", ("cache",))
_LEASE_WAITS = Spec(
    "isp_cache_lease_waits_total", "counter", "Calls that waited for another process's load.", ("cache",)
)
_OUTAGES = Spec("isp_cache_remote_outages_total", "counter", "Times the remote level went down.", ("cache",))
_DISTRUST_SECONDS = Spec(
    "isp_cache_distrusted_seconds_total",
    "counter",
    "Time in which the local level could not be believed, for want of news.",
    ("cache",),
)
_UNDELIVERED = Spec(
    "isp_cache_undelivered_invalidations", "gauge", "Removals the remote level was not told yet.", ("cache",)
)
DERIVED = (_HIT_RATIO,)


def _read(manager: "CacheManager", readings: Readings) -> None:
    stats, name = manager.stats(), manager.name
    readings.add(_GETS, stats.l1_hits, name, "l1", "hit")
    readings.add(_GETS, stats.l2_hits, name, "l2", "hit")
    readings.add(_GETS, stats.misses, name, "none", "miss")
    readings.add(_LOADS, stats.loads - stats.errors, name, "ok")
    readings.add(_LOADS, stats.errors, name, "error")
    readings.add(_LOAD_SECONDS, stats.load_seconds, name)
    readings.add(_WAITERS, stats.joined, name)
    readings.add(_EVICTIONS, stats.evictions, name, "size")
    readings.add(_EVICTIONS, stats.expirations, name, "expired")
    readings.add(_INVALIDATIONS, stats.invalidations, name)
    readings.add(_REMOTE_ERRORS, stats.remote_errors, name)
    readings.add(_ENTRIES, stats.l1_size, name)
    readings.add(_SAVED, stats.seconds_saved, name)
    readings.add(_STALE, stats.stale_hits, name)
    readings.add(_WEIGHT, stats.l1_weight_bytes, name)
    for reason, number in stats.misses_by.items():
        readings.add(_MISSES, number, name, reason)
    for spec, ratio in ((_HALF, stats.half_size_hit_ratio), (_DOUBLE, stats.double_size_hit_ratio)):
        if ratio is not None:
            readings.add(spec, ratio, name)
    _read_tally(manager, readings)
    for key, own in manager.functions().items():
        readings.add(_FUNCTION_GETS, own.hits, name, key, "hit")
        readings.add(_FUNCTION_GETS, own.misses, name, key, "miss")
        readings.add(_FUNCTION_LOADS, own.loads, name, key)
        readings.add(_FUNCTION_SECONDS, own.load_seconds, name, key)


def _read_tally(manager: "CacheManager", readings: Readings) -> None:
    tally, name = manager.tally(), manager.name
    readings.add_histogram(_LOAD_DURATION, tally.load_cells, round(tally.load_seconds * _NANOSECONDS), name)
    readings.add_histogram(_GET_DURATION, tally.hit_cells, round(tally.hit_seconds * _NANOSECONDS), name, "l1")
    manager.sample_hits()  # for the next reading
    for kind, number in tally.remote_errors.items():
        readings.add(_ERRORS_BY_KIND, number, name, kind)
    for reason, number in tally.distrusted_values.items():
        readings.add(_DISTRUSTED, number, name, reason)
    readings.add(_REFUSED_FILLS, tally.refused_fills, name)
    readings.add(_OVERSIZED, tally.oversized_values, name)
    readings.add(_BYPASSED, tally.bypassed_calls, name)
    readings.add(_LEASE_WAITS, tally.lease_waits, name)
    readings.add(_OUTAGES, tally.outages, name)
    readings.add(_DISTRUST_SECONDS, tally.distrusted_seconds, name)
    readings.add(_UNDELIVERED, tally.undelivered, name)


CACHE = Feature(
    "isp_perf.cache._manager",
    "managers",
    read=_read,
    specs=(
        _GETS,
        _LOADS,
        _LOAD_SECONDS,
        _WAITERS,
        _EVICTIONS,
        _INVALIDATIONS,
        _REMOTE_ERRORS,
        _ENTRIES,
        _SAVED,
        _STALE,
        _WEIGHT,
        _MISSES,
        _HALF,
        _DOUBLE,
        _FUNCTION_GETS,
        _FUNCTION_LOADS,
        _FUNCTION_SECONDS,
        _LOAD_DURATION,
        _GET_DURATION,
        _ERRORS_BY_KIND,
        _DISTRUSTED,
        _REFUSED_FILLS,
        _OVERSIZED,
        _BYPASSED,
        _LEASE_WAITS,
        _OUTAGES,
        _DISTRUST_SECONDS,
        _UNDELIVERED,
    ),
)


def derive(snapshot: Snapshot) -> Iterable[Column]:
    """Return the hit ratio per cache, from the totals over workers."""
    hits: dict[str, float] = {}
    reads: dict[str, float] = {}
    gets = snapshot.get(_GETS.name)
    for (cache, _, result, *_), value in zip(gets.keys, gets.values, strict=True):
        reads[cache] = reads.get(cache, 0) + value
        hits[cache] = hits.get(cache, 0) + (value if result == "hit" else 0)
    names = sorted(reads)
    keys: list[Key] = [(name,) for name in names]
    yield Column(_HIT_RATIO, keys, [hits[name] / reads[name] if reads[name] else math.nan for name in names])
