"""One picture of a service: rates and quantiles of the last seconds, totals, and what was saved, from two snapshots.

Everything is arithmetic on totals over workers; no ratio is ever averaged. The picture is JSON-ready: the page, the
terminal view, the doctor and the report all draw from the same object.
"""

from collections.abc import Mapping, Sequence
from math import isnan
from operator import add, sub
from typing import Any, Final

from isp_perf._core.histogram import quantile
from isp_perf.metrics._snapshot import Key, Snapshot
from isp_perf.ops._figures import circuit_breakers, compression_stats, grouped

__all__ = ["STREAM_ROUTE", "picture", "recent_hit_ratio", "savings"]

STREAM_ROUTE: Final = "/performance/dashboard:events"
"""The route under which event streams are counted; they last as long as somebody looks, so they tell no latency."""

_NANOSECONDS: Final = 1e9
_ROWS: Final = 50
_SERVER_ERROR: Final = "5"
_TIERS: Final = ("l1", "l2")


def picture(now: Snapshot, before: Snapshot, seconds: float) -> dict[str, Any]:
    """Return the figures of a service as JSON-ready values.

    Args:
        now: the totals.
        before: the totals a while ago; rates and quantiles are of the time between. The same as ``now``: none are told.
        seconds: the time between them, >= 0.
    """
    window = _Window(now, before, seconds)
    window.routes = _by_route(window)
    return {
        "at": round(now.time_ns / _NANOSECONDS, 3),
        "window_seconds": round(seconds, 3),
        "requests": _requests(window),
        "routes": _routes(window),
        "caches": _caches(window),
        "hot_keys": _hot_keys(window),
        "breakers": [{"breaker": name, **report} for name, report in sorted(circuit_breakers(now).items())],
        "redis": _redis(window),
        "compression": _compression(window),
        "queries": _queries(window),
        "workers": _workers(now),
        "process": _process(window),
    }


def savings(now: Snapshot) -> dict[str, float]:
    """Return what did not have to be done since the start: loads and their time, statements, bytes, trips, calls."""
    results = grouped(now, "isp_cache_gets_total", "result")
    return {
        "load_seconds": _saved_seconds(now),
        "loads": results.get("hit", 0) + now.get("isp_cache_coalesced_waiters_total").total(),
        "statements": max(
            0, now.get("isp_queries_preloaded_total").total() - now.get("isp_queries_batches_total").total()
        ),
        "bytes": now.get("isp_compression_saved_bytes_total").total(),
        "round_trips": now.get("isp_redis_round_trips_saved_total").total(),
        "calls": now.get("isp_circuit_breaker_not_permitted_total").total(),
    }


def recent_hit_ratio(shown: Mapping[str, Any]) -> float | None:
    """Return the hits of all caches over their reads within the window of a picture; ``None`` without reads."""
    reads = [(row["reads_per_second"] or 0.0, row["recent_hit_ratio"] or 0.0) for row in shown["caches"]]
    total = sum(rate for rate, _ in reads)
    return sum(rate * ratio for rate, ratio in reads) / total if total else None


class _Window:
    """What was counted between two snapshots."""

    def __init__(self, now: Snapshot, before: Snapshot, seconds: float) -> None:
        self.now = now
        self._before = before
        self._seconds = seconds
        self.routes: dict[tuple[str, str], _Route] = {}

    def counts(self, name: str) -> dict[Key, Any]:
        """Return by key what a counter grew by; never below 0."""
        old = self._before.get(name).by_key()
        return {key: max(0, value - old.get(key, 0)) for key, value in self.now.get(name).by_key().items()}

    def cells(self, name: str) -> dict[Key, list[int]]:
        """Return by key what a histogram's cells (and, last, its sum) grew by."""
        old = self._before.get(name).by_key()
        return {
            key: list(map(sub, value, old[key])) if key in old else value
            for key, value in self.now.get(name).by_key().items()
        }

    def rate(self, count: float) -> float | None:
        """Return ``count`` per second; ``None`` where no time has passed."""
        return round(count / self._seconds, 3) if self._seconds > 0 else None

    def grew(self, name: str) -> float | None:
        """Return by how much a counter grew per second."""
        return self.rate(sum(self.counts(name).values()))


def _requests(window: _Window) -> dict[str, Any]:
    rows = window.routes
    merged: list[int] = []
    for row in rows.values():
        merged = list(map(add, merged, row.cells)) if merged else row.cells
    count, errors = sum(row.count for row in rows.values()), sum(row.errors for row in rows.values())
    return {
        "total": sum(row.total for row in rows.values()),
        "per_second": window.rate(count),
        "errors_per_second": window.rate(errors),
        "error_ratio": _share(errors, count),
        **_quantiles(merged),
        "in_flight": int(sum(window.now.get("isp_http_requests_in_flight").values)),
    }


def _saved_seconds(now: Snapshot) -> float:
    """Return hits times the mean time of a load: per cached function, and per cache for reads without a function.

    From totals of living and dead workers, so that it does not shrink when a worker ends.
    """
    functions = _functions(now)
    return sum(map(_saved, [*functions, *_without_function(now, functions)]))


def _saved(row: Mapping[str, Any]) -> float:
    return float(row["hits"] * row["load_seconds"] / row["loads"]) if row["loads"] else 0.0


def _without_function(now: Snapshot, functions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what remains of each cache's totals when those of its functions are taken off."""
    totals = {
        "hits": _hits_by_cache(now),
        "loads": grouped(now, "isp_cache_loads_total", "cache"),
        "load_seconds": grouped(now, "isp_cache_load_seconds_total", "cache"),
    }
    for row in functions:
        for name, of_caches in totals.items():
            of_caches[row["cache"]] = max(0, of_caches.get(row["cache"], 0) - row[name])
    return [{name: of_caches.get(cache, 0) for name, of_caches in totals.items()} for cache in totals["hits"]]


def _hits_by_cache(now: Snapshot) -> dict[str, int]:
    totals = now.get("isp_cache_gets_total").by_key()
    return {name: _results(totals, name)[0] for name in {key[0] for key in totals}}


class _Route:
    """What one route did within the window, and its requests since the start."""

    __slots__ = ("cells", "count", "errors", "total")

    def __init__(self) -> None:
        self.total = self.count = self.errors = 0
        self.cells: list[int] = []


def _by_route(window: _Window) -> dict[tuple[str, str], _Route]:
    rows: dict[tuple[str, str], _Route] = {}
    grown = window.counts("isp_http_requests_total")
    for key, total in window.now.get("isp_http_requests_total").by_key().items():
        method, route, status = key[:3]
        if route == STREAM_ROUTE:
            continue
        row = rows.setdefault((method, route), _Route())
        row.total += total
        row.count += grown[key]
        row.errors += grown[key] if status.startswith(_SERVER_ERROR) else 0
    for (method, route, *_), cells in window.cells("isp_http_request_duration_seconds").items():
        if (method, route) in rows:
            row = rows[method, route]
            row.cells = list(map(add, row.cells, cells)) if row.cells else cells
    return rows


def _routes(window: _Window) -> list[dict[str, Any]]:
    rows = sorted(window.routes.items(), key=lambda item: (-item[1].total, item[0]))
    return [
        {
            "method": method,
            "route": route,
            "requests": row.total,
            "per_second": window.rate(row.count),
            "error_ratio": _share(row.errors, row.count),
            **_quantiles(row.cells),
        }
        for (method, route), row in rows[:_ROWS]
    ]


def _quantiles(cells: Sequence[int]) -> dict[str, float | None]:
    counts = cells[:-1]  # the last one is the sum
    found = {name: quantile(counts, share) for name, share in (("p50_seconds", 0.5), ("p99_seconds", 0.99))}
    return {name: None if value is None else round(value / _NANOSECONDS, 9) for name, value in found.items()}


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None


def _caches(window: _Window) -> list[dict[str, Any]]:
    totals = window.now.get("isp_cache_gets_total").by_key()
    found = [_cache(window, name, totals) for name in sorted({key[0] for key in totals})]
    return [row for row in found if row["hits"] + row["misses"] or row["entries"]]


def _cache(window: _Window, name: str, totals: Mapping[Key, Any]) -> dict[str, Any]:
    hits, misses = _results(totals, name)
    ratio = _share(hits, hits + misses)
    recent_hits, recent_misses = _results(window.counts("isp_cache_gets_total"), name)
    return {
        "cache": name,
        "hits": hits,
        "misses": misses,
        "hit_ratio": ratio,
        **{f"{tier}_hits": sum(value for key, value in totals.items() if key[:2] == (name, tier)) for tier in _TIERS},
        "reads_per_second": window.rate(recent_hits + recent_misses),
        "recent_hit_ratio": _share(recent_hits, recent_hits + recent_misses),
        "misses_by": {key[1]: value for key, value in _of_cache(window, "isp_cache_misses_total", name) if value},
        "half_size_hit_ratio": _estimate(window, "half", name, ratio=ratio),
        "double_size_hit_ratio": _estimate(window, "double", name, ratio=ratio),
        "entries": int(grouped(window.now, "isp_cache_entries", "cache").get(name, 0)),
        "evictions": sum(
            value for key, value in _of_cache(window, "isp_cache_evictions_total", name) if key[1] == "size"
        ),
    }


def _of_cache(window: _Window, family: str, cache: str) -> list[tuple[Key, Any]]:
    return [(key, value) for key, value in window.now.get(family).by_key().items() if key[0] == cache]


def _estimate(window: _Window, size: str, cache: str, *, ratio: float | None) -> float | None:
    """Return the hit ratio estimated for another room; ``None`` where none is known.

    Estimates are means over workers, the hit ratio is not: more room never means fewer hits, less room never more.
    """
    found = _of_cache(window, f"isp_cache_{size}_size_hit_ratio", cache)
    values = [round(float(value), 6) for _, value in found if not isnan(value)]
    if not values or ratio is None:
        return None
    return max(values[0], ratio) if size == "double" else min(values[0], ratio)


def _results(counts: Mapping[Key, Any], cache: str) -> tuple[int, int]:
    of_cache = [(key[2], value) for key, value in counts.items() if key[0] == cache]
    hits = sum(value for result, value in of_cache if result in {"hit", "stale", "negative"})
    return hits, sum(value for result, value in of_cache if result == "miss")


def _hot_keys(window: _Window) -> list[dict[str, Any]]:
    """Return cached functions by the time they saved; they are named by key template, which holds no argument."""
    found: list[dict[str, Any]] = [
        {
            "cache": row["cache"],
            "key": row["key"],
            "hits": row["hits"],
            "misses": row["misses"],
            "hit_ratio": _share(row["hits"], row["hits"] + row["misses"]),
            "load_seconds_mean": round(row["load_seconds"] / row["loads"], 9) if row["loads"] else None,
            "load_seconds": round(row["load_seconds"], 6),
            "saved_seconds": round(_saved(row), 6),
        }
        for row in _functions(window.now)
    ]
    found.sort(key=lambda row: (-row["saved_seconds"], -row["hits"]))
    return found[:_ROWS]


def _functions(now: Snapshot) -> list[dict[str, Any]]:
    """Return what every cached function did since the start."""
    gets = now.get("isp_cache_function_gets_total").by_key()
    seconds = now.get("isp_cache_function_load_seconds_total").by_key()
    loads = now.get("isp_cache_function_loads_total").by_key()
    return [
        {
            "cache": cache,
            "key": key,
            "hits": gets.get((cache, key, "hit"), 0),
            "misses": gets.get((cache, key, "miss"), 0),
            "loads": loads.get((cache, key), 0),
            "load_seconds": seconds.get((cache, key), 0.0),
        }
        for cache, key in sorted({(key[0], key[1]) for key in gets})
    ]


def _redis(window: _Window) -> dict[str, Any]:
    now = window.now
    states = grouped(now, "isp_redis_pool_connections", "state")
    commands = window.grew("isp_redis_commands_total")
    batches = sum(window.counts("isp_redis_batches_total").values())
    sent = sum(window.counts("isp_redis_commands_total").values())
    ping = max((value for value in now.get("isp_redis_ping_seconds").values if not isnan(value)), default=None)
    return {
        "created_connections": int(states.get("created", 0)),
        "available_connections": int(states.get("available", 0)),
        "in_flight": int(sum(now.get("isp_redis_in_flight").values)),
        "queued": int(sum(now.get("isp_redis_queued").values)),
        "commands": now.get("isp_redis_commands_total").total(),
        "commands_per_second": commands,
        "commands_per_round_trip": _share(sent, batches),
        "round_trips_saved": now.get("isp_redis_round_trips_saved_total").total(),
        "ping_seconds": ping,
        "expected_in_flight": None if ping is None or commands is None else round(commands * ping, 3),  # Little's law
        "timeouts": grouped(now, "isp_redis_timeouts_total", "where"),
    }


def _compression(window: _Window) -> dict[str, Any]:
    stats = compression_stats(window.now)
    return {
        **stats,
        "size_ratio": _share(stats["bytes_out"], stats["bytes_in"]),
        "saved_bytes_per_second": window.grew("isp_compression_saved_bytes_total"),
        "codec_seconds": round(window.now.get("isp_compression_seconds_total").total(), 6),
    }


def _queries(window: _Window) -> dict[str, Any]:
    now = window.now
    total, seconds = now.get("isp_queries_total").total(), now.get("isp_queries_seconds_total").total()
    sites = sorted(now.get("isp_queries_site_findings_total").by_key().items(), key=lambda item: (-item[1], item[0]))
    kinds = grouped(now, "isp_queries_findings_total", "kind")
    return {
        "total": total,
        "per_second": window.grew("isp_queries_total"),
        "mean_seconds": round(seconds / total, 9) if total else None,
        "findings": {kind: kinds.get(kind, 0) for kind in ("n_plus_one", "repeated_read", "write_loop")},
        "over_budget": now.get("isp_queries_over_budget_total").total(),
        "sites": [
            {"kind": kind, "path": path, "site": site, "findings": findings}
            for (kind, path, site, *_), findings in sites[:_ROWS]
        ],
    }


def _workers(now: Snapshot) -> list[dict[str, Any]]:
    ages = now.get("isp_worker_snapshot_age_seconds")
    return [
        {"worker": key[0], "age_seconds": round(value, 3)} for key, value in zip(ages.keys, ages.values, strict=True)
    ]


def _process(window: _Window) -> dict[str, Any]:
    lag = [quantile(cells[:-1], 0.99) for cells in window.cells("isp_loop_lag_seconds").values()]
    late = [value / _NANOSECONDS for value in lag if value is not None]
    resident = window.now.get("isp_process_resident_memory_bytes").values
    return {
        "resident_bytes": int(sum(resident)) if resident else None,
        "loop_lag_p99_seconds": round(max(late), 9) if late else None,
        "gc_pause_ratio": window.grew("isp_gc_pause_seconds_total"),
        "self_overhead_ratio": window.grew("isp_self_overhead_seconds_total"),
    }
