"""Advice comes from figures that mean something, and says what was seen and what to do."""

import pytest

from isp_perf.cli._advice import advice
from isp_perf.metrics._snapshot import Snapshot
from isp_perf.ops._picture import picture

HEALTHY = {"status": "healthy"}


def service(**changes):
    """Return the picture of an idle service with some parts changed."""
    found = picture(Snapshot({}), Snapshot({}), 10.0)
    for name, change in changes.items():
        found[name] = {**found[name], **change} if isinstance(change, dict) else change
    return found


def a_cache(**changes):
    figures = {"hits": 900, "misses": 100, "hit_ratio": 0.9, "entries": 50, "evictions": 0}
    return {"cache": "default", **figures, "misses_by": {}, "double_size_hit_ratio": None, **changes}


def a_route(**changes):
    figures = {"requests": 1000, "per_second": 50.0, "error_ratio": 0.0, "p50_seconds": 0.01, "p99_seconds": 0.02}
    return {"method": "GET", "route": "/inbox", **figures, **changes}


def a_breaker(state):
    return {"breaker": "whatsapp_api", "state": state, "rejected": 5, "failure_count": 3}


def kinds(found, redis=HEALTHY):
    return [one.kind for one in advice(found, redis)]


def test_an_idle_and_a_healthy_service_get_none():
    """Nothing used and everything well are both no finding."""
    assert kinds(service()) == []
    assert kinds(service(caches=[a_cache()], routes=[a_route()], breakers=[a_breaker("closed")])) == []


@pytest.mark.parametrize(
    ("changes", "kind", "seen"),
    [
        ({"caches": [a_cache(hits=40, misses=160, hit_ratio=0.2)]}, "cache", "20.0 %"),
        ({"caches": [a_cache(evictions=51)]}, "cache", "51 evictions"),
        ({"caches": [a_cache(double_size_hit_ratio=0.97)]}, "cache", "97.0 % with twice the room"),
        (
            {"caches": [a_cache(hits=40, misses=160, hit_ratio=0.2, misses_by={"expired": 150, "absent": 10})]},
            "cache",
            "most misses: expired",
        ),
        ({"hot_keys": [{"key": "q:{hash}", "hits": 1, "misses": 199, "hit_ratio": 0.005}]}, "cache", "1 hits in 200"),
        ({"routes": [a_route(p50_seconds=0.25)]}, "cache", "250 ms"),
        ({"routes": [a_route(error_ratio=0.05)]}, "errors", "5.0 %"),
        (
            {"queries": {"sites": [{"kind": "n_plus_one", "path": "A.b", "site": "main.py:3", "findings": 7}]}},
            "preload",
            "found 7 times",
        ),
        (
            {"queries": {"sites": [{"kind": "write_loop", "path": "A", "site": "main.py:3", "findings": 7}]}},
            "cache",
            "write loop",
        ),
        ({"queries": {"mean_seconds": 0.08, "total": 500}}, "index", "80.0 ms"),
        ({"compression": {"total_requests": 10, "skipped": {"no_accept_encoding": 190}}}, "compress", "190 of 200"),
        ({"breakers": [a_breaker("open")]}, "breaker", "5 calls rejected"),
        ({"redis": {"queued": 500, "timeouts": {}}}, "redis", "500 commands"),
        ({"redis": {"timeouts": {"server": 3, "queue": 0}}}, "redis", "3 in server"),
        ({"process": {"gc_pause_ratio": 0.2}}, "runtime", "20.0 %"),
        ({"process": {"loop_lag_p99_seconds": 0.25}}, "runtime", "250 ms late"),
        ({"workers": [{"worker": "1", "age_seconds": 9.0}, {"worker": "2", "age_seconds": 0.0}]}, "runtime", "1 of 2"),
    ],
)
def test_each_fault_is_one_finding(changes, kind, seen):
    """Each rule finds its fault, names its kind, quotes the figure, and says what to do."""
    [found] = advice(service(**changes), HEALTHY)
    assert found.kind == kind
    assert seen in found.evidence
    assert found.fix
    assert set(found.as_dict()) == {"kind", "subject", "evidence", "fix"}


def test_few_calls_mean_nothing():
    """A bad ratio of a handful of calls is no finding."""
    few = service(
        caches=[a_cache(hits=1, misses=9, hit_ratio=0.1)],
        routes=[a_route(requests=5, p50_seconds=3.0, error_ratio=1.0)],
        queries={"mean_seconds": 1.0, "total": 3},
    )
    assert kinds(few) == []


def test_redis_down_and_redis_missing():
    """A Redis that fails is told with its reason; caches of several workers without any are told too."""
    [down] = advice(service(), {"status": "unhealthy", "reason": "ConnectionRefusedError"})
    assert "ConnectionRefusedError" in down.evidence
    workers = [{"worker": str(number), "age_seconds": 0.0} for number in range(4)]
    [missing] = advice(service(workers=workers, caches=[a_cache()]), {"status": "disabled"})
    assert "4 workers" in missing.evidence
    assert kinds(service(workers=workers), {"status": "disabled"}) == []
