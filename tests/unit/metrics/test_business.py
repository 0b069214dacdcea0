"""The seed's business metrics carry their bare names and follow the caches' totals."""

import math

import pytest

from isp_perf.metrics import CACHE_HIT_RATE, CONVERSATION_DURATION, MESSAGE_PROCESSING_TIME, registry
from isp_perf.metrics._business import hit_ratio
from isp_perf.metrics._snapshot import Column, Snapshot, Spec

GETS = Spec("isp_cache_gets_total", "counter", "Gets.", ("cache", "tier", "result"))


def snapshot(**results):
    keys = [("default", "l1", name) for name in results]
    return Snapshot({GETS.name: Column(GETS, keys, list(results.values()))})


def test_the_three_names_are_in_every_scrape():
    """The two histograms and the gauge stand in the default registry under the names of the seed."""
    columns = registry.collect("worker").columns
    assert columns["conversation_duration_seconds"].spec.kind == "histogram"
    assert columns["message_processing_seconds"].spec.kind == "histogram"
    assert columns["cache_hit_rate"].spec.kind == "gauge"


def test_a_conversation_of_hours_is_counted_in_full():
    """Conversations may last far longer than a request: the sum keeps every second."""
    before = CONVERSATION_DURATION.sum
    CONVERSATION_DURATION.observe(40 * 3600)
    assert CONVERSATION_DURATION.sum - before == pytest.approx(40 * 3600)
    MESSAGE_PROCESSING_TIME.observe(0.01)
    assert MESSAGE_PROCESSING_TIME.quantile(0.5) == pytest.approx(0.01, rel=0.0625)


def test_the_hit_ratio_comes_from_totals():
    """Hits, stale hits and negative hits over all reads; unknown without reads."""
    assert hit_ratio(snapshot(hit=1250, miss=150)) == pytest.approx(1250 / 1400)
    assert hit_ratio(snapshot(hit=1, stale=1, negative=1, miss=1)) == 0.75
    assert math.isnan(hit_ratio(snapshot(hit=0, miss=0)))
    assert math.isnan(hit_ratio(Snapshot({})))


def test_the_application_may_set_the_rate_itself():
    """A value set by the application is shown as it is; taken back, the totals speak again."""
    CACHE_HIT_RATE.set(0.123456789)
    try:
        assert registry.collect("worker").get("cache_hit_rate").values == [0.123456789]
    finally:
        CACHE_HIT_RATE.set(math.nan)
    assert registry.collect("worker").get("cache_hit_rate").values != [0.123456789]
