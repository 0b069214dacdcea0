"""The seed's JSON, computed from totals over all workers; more keys only stand beside its own."""

from collections.abc import Mapping
from typing import Any, Final

from isp_perf.metrics._from_breaker import STATES
from isp_perf.metrics._snapshot import Snapshot

__all__ = ["cache_stats", "circuit_breakers", "compression_stats", "grouped", "pool_info"]

_MIB: Final = 1 << 20
_NAMES: Final = {"br": "brotli"}
_ALWAYS: Final = ("brotli", "gzip")
_OPENED: Final = frozenset({"open", "isolated"})


def grouped(snapshot: Snapshot, name: str, label: str) -> dict[str, Any]:
    """Return a family's sums per value of ``label``; empty if it has no series."""
    column = snapshot.get(name)
    return column.grouped(label) if column.keys else {}


def cache_stats(snapshot: Snapshot) -> dict[str, Any]:
    """Return ``hits``, ``misses``, ``hit_rate`` (percent, one decimal, 0.0 without reads), ``l1_size`` and the rest."""
    results = grouped(snapshot, "isp_cache_gets_total", "result")
    tiers = grouped(snapshot, "isp_cache_gets_total", "tier")
    loads = grouped(snapshot, "isp_cache_loads_total", "result")
    hits, misses = results.get("hit", 0), results.get("miss", 0)
    reads = hits + misses
    return {
        "hits": hits,
        "misses": misses,
        "hit_rate": round(100 * hits / reads, 1) if reads else 0.0,
        "l1_size": int(snapshot.get("isp_cache_entries").total()),
        "l1_hits": tiers.get("l1", 0),
        "l2_hits": tiers.get("l2", 0),
        "loads": sum(loads.values()),
        "load_errors": loads.get("error", 0),
        "load_seconds": round(snapshot.get("isp_cache_load_seconds_total").total(), 6),
        "joined": snapshot.get("isp_cache_coalesced_waiters_total").total(),
        "evictions": grouped(snapshot, "isp_cache_evictions_total", "cause").get("size", 0),
        "remote_errors": snapshot.get("isp_cache_remote_errors_total").total(),
    }


def pool_info(snapshot: Snapshot) -> dict[str, int]:
    """Return the sockets of all workers: ``created_connections`` and ``available_connections``."""
    states = grouped(snapshot, "isp_redis_pool_connections", "state")
    return {f"{state}_connections": int(states.get(state, 0)) for state in ("created", "available")}


def compression_stats(snapshot: Snapshot) -> dict[str, Any]:
    """Return ``total_requests``, ``total_bytes_saved``, ``total_bytes_saved_mb`` (MiB) and ``by_encoding``.

    The totals are the sums of ``by_encoding``, in which brotli and gzip always stand.
    """
    requests = grouped(snapshot, "isp_compression_responses_total", "encoding")
    saved = grouped(snapshot, "isp_compression_saved_bytes_total", "encoding")
    by_encoding = {name: {"requests": 0, "bytes_saved": 0} for name in _ALWAYS}
    for coding, count in requests.items():
        entry = {"requests": int(count), "bytes_saved": int(saved.get(coding, 0))}
        by_encoding[_NAMES.get(coding, coding)] = entry
    total = sum(entry["bytes_saved"] for entry in by_encoding.values())
    return {
        "total_requests": sum(entry["requests"] for entry in by_encoding.values()),
        "total_bytes_saved": total,
        "total_bytes_saved_mb": round(total / _MIB, 1),
        "by_encoding": by_encoding,
        "skipped": grouped(snapshot, "isp_compression_skipped_total", "reason"),
        "bytes_in": snapshot.get("isp_compression_in_bytes_total").total(),
        "bytes_out": snapshot.get("isp_compression_out_bytes_total").total(),
    }


def circuit_breakers(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """Return state, ``failure_count`` and ``success_count`` of every breaker.

    Every worker's breaker decides for itself: the state told is the worst one, ``failure_count`` the highest number
    of failures that count now; calls are summed.
    """
    states: dict[str, str] = {}
    column = snapshot.get("isp_circuit_breaker_state")
    for (name, state, *_), value in zip(column.keys, column.values, strict=True):
        if value and STATES.index(state) >= STATES.index(states.get(name, STATES[0])):
            states[name] = state
    calls = snapshot.get("isp_circuit_breaker_calls_total")
    by_breaker: dict[str, dict[str, int]] = {}
    for (name, kind, *_), value in zip(calls.keys, calls.values, strict=True):
        kinds = by_breaker.setdefault(name, {})
        kinds[kind] = kinds.get(kind, 0) + value
    gauges = {
        "failures": grouped(snapshot, "isp_circuit_breaker_failures", "breaker"),
        "retry": grouped(snapshot, "isp_circuit_breaker_retry_after_seconds", "breaker"),
        "rejected": grouped(snapshot, "isp_circuit_breaker_not_permitted_total", "breaker"),
        "slow": grouped(snapshot, "isp_circuit_breaker_slow_calls_total", "breaker"),
        "opened_at": grouped(snapshot, "isp_circuit_breaker_opened_at_seconds", "breaker"),
        "opened": _openings(snapshot),
    }
    return {name: _breaker(name, state, by_breaker.get(name, {}), gauges=gauges) for name, state in states.items()}


def _breaker(
    name: str, state: str, kinds: Mapping[str, int], *, gauges: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    wait = gauges["retry"].get(name)
    return {
        "state": state,
        "failure_count": int(gauges["failures"].get(name, 0)),
        "success_count": kinds.get("success", 0),
        "failures": kinds.get("failure", 0),
        "rejected": gauges["rejected"].get(name, 0),
        "slow_calls": gauges["slow"].get(name, 0),
        "retry_after_ms": None if wait is None else round(wait * 1000),
        "opened": int(gauges["opened"].get(name, 0)),
        "opened_at": None if state == "closed" else gauges["opened_at"].get(name),
    }


def _openings(snapshot: Snapshot) -> dict[str, int]:
    """Return how often each breaker has opened; a probe that failed does not count again."""
    openings: dict[str, int] = {}
    for (name, before, after, *_), count in snapshot.get("isp_circuit_breaker_transitions_total").by_key().items():
        if after in _OPENED and before != "half_open" and before not in _OPENED:
            openings[name] = openings.get(name, 0) + count
    return openings
