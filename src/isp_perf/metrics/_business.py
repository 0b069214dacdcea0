"""The business metrics of a customer-support service, under their bare names."""

import math
from collections.abc import Iterable

from isp_perf.metrics._registry import registry
from isp_perf.metrics._snapshot import Column, Snapshot

__all__ = ["CACHE_HIT_RATE", "CONVERSATION_DURATION", "MESSAGE_PROCESSING_TIME", "hit_ratio"]

_MINUTE = 60.0
_HOUR = 3600.0

CONVERSATION_DURATION = registry.histogram(
    "conversation_duration_seconds",
    "How long a conversation with a customer was open.",
    buckets=(_MINUTE / 2, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, _HOUR, 4 * _HOUR, 12 * _HOUR, 24 * _HOUR),
)
"""Histogram of seconds a conversation was open; ``observe`` it when a conversation ends."""

MESSAGE_PROCESSING_TIME = registry.histogram(
    "message_processing_seconds", "How long one message took from receipt to done."
)
"""Histogram of seconds a message took."""

CACHE_HIT_RATE = registry.gauge(
    "cache_hit_rate",
    "Share of cache reads that were hits (0-1); of all caches unless the application sets it.",
    merge="mean",
)
"""Gauge, 0 to 1: hits over reads of all caches, unless the application sets it."""
CACHE_HIT_RATE.set(math.nan)

_GETS = "isp_cache_gets_total"
_MISS = "miss"


def hit_ratio(snapshot: Snapshot) -> float:
    """Return hits over reads of all caches, from totals; NaN before the first read. A stale hit is a hit."""
    gets = snapshot.get(_GETS)
    if not gets.values:
        return math.nan
    results = gets.grouped("result")
    reads = sum(results.values())
    return (reads - results.get(_MISS, 0)) / reads if reads else math.nan


def _derived_hit_rate(snapshot: Snapshot) -> Iterable[Column]:
    column = snapshot.get("cache_hit_rate")
    if all(math.isnan(value) for value in column.values):
        yield Column(column.spec, [()], [hit_ratio(snapshot)])


registry.derive(_derived_hit_rate, ())
