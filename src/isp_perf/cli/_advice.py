"""What the figures of a service say should be changed: each finding with its evidence and what to do.

Thresholds are written beside the rule. A rule needs enough calls to mean something, so a service that has just started
gets no advice from chance.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from isp_perf.ops._shown import count, duration, percent, plain, rate

__all__ = ["Advice", "advice"]

_ENOUGH_READS: Final = 100
_ENOUGH_REQUESTS: Final = 20
_LOW_HIT_RATIO: Final = 0.5
_USELESS_HIT_RATIO: Final = 0.1
_SLOW_P50: Final = 0.1  # seconds
_ERRORS: Final = 0.01
_SLOW_STATEMENT: Final = 0.02  # seconds
_LATE: Final = 0.1  # seconds
_GC_SHARE: Final = 0.05
_QUEUE: Final = 100
_NOT_ENCODED: Final = 0.5
_OLD_FIGURES: Final = 3.0  # seconds
_WORTH_THE_ROOM: Final = 0.05
_MISSES: Final = {
    "absent": "warm it (isp-perf warm), or take fields out of the key that do not matter",
    "expired": "give the values a longer ttl, or refresh them early (early_refresh)",
    "evicted": "raise max_entries (ISP_PERF_CACHE_MAX_ENTRIES)",
    "invalidated": "invalidate less at once: keys or tags of what changed instead of patterns",
}
_FIXES: Final = {
    "n_plus_one": "load it along: options(*isp_perf.preload(...)) on the statement, or install(engine)",
    "repeated_read": "ask once and keep the answer, or cache it: cached_query or @cached",
    "unused_preload": "take the path out of preload(...): it is loaded, and nobody reads it",
    "write_loop": "send the rows together: isp_perf.queries.bulk_insert, bulk_update or bulk_upsert",
}

Picture = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Advice:
    """One finding.

    Args:
        kind: cache, preload, compress, index, redis, breaker, errors or runtime.
        subject: what it is about.
        evidence: the figures that say so.
        fix: what to do.
    """

    kind: str
    subject: str
    evidence: str
    fix: str

    def as_dict(self) -> dict[str, str]:
        """Return the fields for JSON."""
        return asdict(self)


def advice(picture: Picture, redis: Picture) -> list[Advice]:
    """Return what should be changed.

    Args:
        picture: what the live page shows.
        redis: ``redis_health`` of ``/cache/stats``.
    """
    rules = (_caches, _keys, _routes, _queries, _compression, _breakers, _process)
    return [*_redis(picture, redis), *(found for rule in rules for found in rule(picture))]


def _caches(picture: Picture) -> Iterator[Advice]:
    for row in picture["caches"]:
        name, ratio = plain(row["cache"]), row["hit_ratio"]
        reads = row["hits"] + row["misses"]
        if reads >= _ENOUGH_READS and ratio < _LOW_HIT_RATIO:
            reason = max(row["misses_by"], key=row["misses_by"].__getitem__, default="absent")
            evidence = f"hit ratio {percent(ratio)} of {count(reads)} reads; most misses: {plain(reason)}"
            yield Advice("cache", f"cache {name}", evidence, _MISSES.get(reason, _MISSES["absent"]))
        larger = row["double_size_hit_ratio"]
        if reads >= _ENOUGH_READS and larger is not None and larger - ratio >= _WORTH_THE_ROOM:
            evidence = f"hit ratio {percent(ratio)}; about {percent(larger)} with twice the room"
            yield Advice("cache", f"cache {name}", evidence, "raise max_entries (ISP_PERF_CACHE_MAX_ENTRIES)")
        elif row["evictions"] > row["entries"] > 0:
            evidence = f"{count(row['evictions'])} evictions, {count(row['entries'])} entries"
            yield Advice("cache", f"cache {name}", evidence, "raise max_entries (ISP_PERF_CACHE_MAX_ENTRIES)")


def _keys(picture: Picture) -> Iterator[Advice]:
    for row in picture["hot_keys"]:
        reads = row["hits"] + row["misses"]
        if reads >= _ENOUGH_READS and row["hit_ratio"] < _USELESS_HIT_RATIO:
            evidence = f"{count(row['hits'])} hits in {count(reads)} calls"
            fix = "its key is rarely asked twice: drop fields that do not matter, or do not cache it"
            yield Advice("cache", f"key {plain(row['key'])}", evidence, fix)


def _routes(picture: Picture) -> Iterator[Advice]:
    for row in picture["routes"]:
        name, p50, errors = plain(f"{row['method']} {row['route']}"), row["p50_seconds"], row["error_ratio"]
        if row["requests"] < _ENOUGH_REQUESTS:
            continue
        if row["method"] == "GET" and p50 is not None and p50 >= _SLOW_P50:
            evidence = f"p50 {duration(p50)}, p99 {duration(row['p99_seconds'])} at {rate(row['per_second'])}"
            fix = "cache what it loads with @cached; its database work is listed by `isp-perf doctor MODULE:APP`"
            yield Advice("cache", name, evidence, fix)
        if errors is not None and errors >= _ERRORS:
            evidence = f"{percent(errors)} of the requests of the last seconds failed (5xx)"
            yield Advice("errors", name, evidence, "see the service's log; guard what it calls with @circuit_breaker")


def _queries(picture: Picture) -> Iterator[Advice]:
    queries = picture["queries"]
    for site in queries["sites"]:
        kind = "preload" if site["kind"] in {"n_plus_one", "unused_preload"} else "cache"
        evidence = f"{plain(site['path'])}: {site['kind'].replace('_', ' ')}, found {count(site['findings'])} times"
        yield Advice(kind, plain(site["site"]), evidence, _FIXES.get(site["kind"], _FIXES["n_plus_one"]))
    mean = queries["mean_seconds"]
    if mean is not None and mean >= _SLOW_STATEMENT and queries["total"] >= _ENOUGH_REQUESTS:
        evidence = f"{duration(mean)} per statement, mean of {count(queries['total'])}"
        yield Advice("index", "database", evidence, "isp_perf.queries.suggest_indexes(session) names the indexes")


def _compression(picture: Picture) -> Iterator[Advice]:
    skipped: Mapping[str, int] = picture["compression"]["skipped"]
    unasked = skipped.get("no_accept_encoding", 0)
    seen = picture["compression"]["total_requests"] + sum(skipped.values())
    if seen >= _ENOUGH_READS and unasked > _NOT_ENCODED * seen:
        evidence = f"{count(unasked)} of {count(seen)} requests came without Accept-Encoding"
        yield Advice("compress", "responses", evidence, "let clients ask for br, gzip; does a proxy drop the header?")


def _breakers(picture: Picture) -> Iterator[Advice]:
    for row in picture["breakers"]:
        if row["state"] in {"open", "isolated"}:
            evidence = (
                f"{row['state']}, {count(row['rejected'])} calls rejected, {count(row['failure_count'])} failures"
            )
            yield Advice("breaker", plain(row["breaker"]), evidence, "see why the service behind it fails")


def _redis(picture: Picture, redis: Picture) -> Iterator[Advice]:
    figures, workers = picture["redis"], len(picture["workers"])
    if redis["status"] in {"degraded", "unhealthy"}:
        evidence = f"{plain(redis['status'])}: {plain(redis.get('reason') or 'no answer to PING')}"
        yield Advice("redis", "Redis", evidence, "check REDIS_URL and the server; until then caches are local")
    if redis["status"] == "disabled" and workers > 1 and picture["caches"]:
        evidence = f"{workers} workers, each with a cache of its own"
        yield Advice("redis", "Redis", evidence, "set REDIS_URL: one load serves all, and invalidation reaches all")
    yield from _redis_limits(figures)


def _redis_limits(figures: Picture) -> Iterator[Advice]:
    if figures["queued"] > _QUEUE:
        evidence = f"{count(figures['queued'])} commands wait to be sent, ping {duration(figures['ping_seconds'])}"
        yield Advice("redis", "Redis", evidence, "the server or the network is the limit: look at its slow log")
    if sum(figures["timeouts"].values()):
        listed = ", ".join(
            f"{count(number)} in {plain(where)}" for where, number in figures["timeouts"].items() if number
        )
        yield Advice("redis", "Redis", f"timeouts: {listed}", "raise the timeout or shorten the commands")


def _process(picture: Picture) -> Iterator[Advice]:
    late = picture["process"]["loop_lag_p99_seconds"]
    if late is not None and late >= _LATE:
        fix = "move what computes or waits in between into a thread (asyncio.to_thread)"
        yield Advice("runtime", "event loop", f"{duration(late)} late for one call in a hundred", fix)
    pause = picture["process"]["gc_pause_ratio"]
    if pause is not None and pause >= _GC_SHARE:
        fix = "call gc.freeze() after the start and raise gc.set_threshold"
        yield Advice("runtime", "garbage collector", f"stops the service {percent(pause)} of the time", fix)
    old = [row for row in picture["workers"] if row["age_seconds"] > _OLD_FIGURES]
    if old:
        evidence = f"{len(old)} of {len(picture['workers'])} workers did not answer for {duration(_OLD_FIGURES)}"
        yield Advice("runtime", "workers", evidence, "something blocks their event loop: move it into a thread")
