"""The seed's JSON: its arithmetic, from totals that several workers add up to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf.metrics import _from_breaker, _from_cache, _from_compression
from isp_perf.metrics._snapshot import Column, Snapshot, merge_snapshots
from isp_perf.ops._figures import cache_stats, circuit_breakers, compression_stats, pool_info


def snapshot(**families):
    """Return a snapshot of families given as spec name -> {key: value}."""
    known = {spec.name: spec for module in (_from_breaker, _from_cache, _from_compression) for spec in specs(module)}
    columns = {}
    for name, series in families.items():
        spec = known[name]
        columns[name] = Column(spec, sorted(series), [series[key] for key in sorted(series)])
    return Snapshot(columns)


def specs(module):
    return [value for value in vars(module).values() if type(value).__name__ == "Spec"]


def gets(hits, misses):
    return {("default", "l1", "hit"): hits, ("default", "none", "miss"): misses}


@pytest.mark.parametrize(
    ("hits", "misses", "rate"), [(1250, 150, 89.3), (0, 0, 0.0), (0, 5, 0.0), (5, 0, 100.0), (1, 2, 33.3)]
)
def test_the_hit_rate_is_the_seeds(hits, misses, rate):
    """Percent with one decimal, 0.0 without reads; counts are whole numbers."""
    stats = cache_stats(snapshot(isp_cache_gets_total=gets(hits, misses), isp_cache_entries={("default",): 500}))
    assert (stats["hits"], stats["misses"], stats["hit_rate"], stats["l1_size"]) == (hits, misses, rate, 500)
    assert isinstance(stats["l1_size"], int)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=4))
def test_rates_come_from_totals(workers):
    """The rate of several workers is that of their sums, never a mean of their rates."""
    total = cache_stats(merge_snapshots([snapshot(isp_cache_gets_total=gets(*worker)) for worker in workers]))
    hits, misses = (sum(worker[place] for worker in workers) for place in (0, 1))
    assert (total["hits"], total["misses"]) == (hits, misses)
    assert total["hit_rate"] == (round(100 * hits / (hits + misses), 1) if hits + misses else 0.0)


def test_nothing_counted_is_zero_everywhere():
    """Without any figure every number of the seed is there and zero."""
    empty = Snapshot({})
    assert cache_stats(empty)["hits"] == 0
    assert pool_info(empty) == {"created_connections": 0, "available_connections": 0}
    assert compression_stats(empty)["by_encoding"] == {
        "brotli": {"requests": 0, "bytes_saved": 0},
        "gzip": {"requests": 0, "bytes_saved": 0},
    }
    assert circuit_breakers(empty) == {}


def test_compression_totals_are_sums():
    """The seed's own figures: 45,000,000 bytes are 42.9 MB, and totals are the sums of the codings."""
    stats = compression_stats(
        snapshot(
            isp_compression_responses_total={("br",): 3000, ("gzip",): 2000},
            isp_compression_saved_bytes_total={("br",): 30_000_000, ("gzip",): 15_000_000},
        )
    )
    assert (stats["total_requests"], stats["total_bytes_saved"], stats["total_bytes_saved_mb"]) == (
        5000,
        45_000_000,
        42.9,
    )
    assert stats["by_encoding"]["brotli"] == {"requests": 3000, "bytes_saved": 30_000_000}


def breaker(state, failures, successes):
    states = {("gateway", name): int(name == state) for name in _from_breaker.STATES}
    return snapshot(
        isp_circuit_breaker_state=states,
        isp_circuit_breaker_failures={("gateway",): failures},
        isp_circuit_breaker_calls_total={("gateway", "success"): successes, ("gateway", "failure"): 1},
        isp_circuit_breaker_retry_after_seconds={("gateway",): 12.5},
        isp_circuit_breaker_transitions_total={
            ("gateway", "closed", "open"): 1,
            ("gateway", "open", "half_open"): 7,
            ("gateway", "half_open", "open"): 6,
        },
    )


def test_of_several_workers_the_worst_state_is_told():
    """One worker's open breaker is told as open, calls and openings are summed, failures are the most."""
    merged = merge_snapshots([breaker("closed", 1, 100), breaker("open", 3, 50)])
    assert circuit_breakers(merged)["gateway"] == {
        "state": "open",
        "failure_count": 3,
        "success_count": 150,
        "failures": 2,
        "rejected": 0,
        "slow_calls": 0,
        "retry_after_ms": 12_500,
        "opened": 2,
        "opened_at": None,
    }
