"""Aliases: the figures under the names that published Grafana boards ask for, beside our own."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from isp_perf.breaker import CircuitBreaker, CircuitConfig, CircuitRegistry
from isp_perf.cache import CacheManager
from isp_perf.errors import CircuitOpenError, ConfigurationError
from isp_perf.metrics import app, collector
from isp_perf.metrics._formats import Format

OPENMETRICS = Format("openmetrics", "1.0.0")


def samples(text, parse=parse_text):
    """Return the samples by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


async def test_cache_figures_have_micrometers_names():
    """Gets by result, puts, loads, evictions and size are told as Micrometer's cache binder tells them."""
    manager = CacheManager("alias-cache", max_entries=10)
    for number in range(30):
        await manager.get_or_set(f"key-{number}", lambda: 1)
    await manager.get("key-29")
    await manager.get("never")
    with pytest.raises(ZeroDivisionError):
        await manager.get_or_set("bad", lambda: 1 / 0)
    page = app(naming="micrometer")
    for chosen, parse in ((Format(), parse_text), (OPENMETRICS, parse_openmetrics)):
        got = samples(page.body(chosen, "worker").decode(), parse)

        def read(name, got=got, **labels):
            return got[name, frozenset({"cache": "alias-cache", **labels}.items())]

        stats = manager.stats()
        assert read("cache_gets_total", result="hit") == stats.hits == 1
        assert read("cache_gets_total", result="miss") == stats.misses
        assert read("cache_puts_total") == read("cache_load_total", result="success") == 30
        assert read("cache_load_total", result="failure") == 1
        assert read("cache_evictions_total") == stats.evictions > 0
        assert read("cache_size") == stats.l1_size
        assert read("cache_load_duration_seconds") == stats.load_seconds
        assert read("isp_cache_entries") == stats.l1_size


def test_breakers_have_resilience4js_names():
    """State, calls by kind, rejected calls and the failure rate in percent; isolated is their forced_open."""
    circuits = CircuitRegistry()
    breaker = CircuitBreaker("alias-gateway", CircuitConfig(failure_threshold=1), registry=circuits)
    breaker.call(int)
    with pytest.raises(ZeroDivisionError):
        breaker.call(lambda: 1 / 0)
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    own = CollectorRegistry()
    collector(own, naming=["resilience4j"])
    start = "resilience4j_circuitbreaker_"

    def read(name, **labels):
        got = samples(generate_latest(own).decode())
        return got[start + name, frozenset({"name": "alias-gateway", **labels}.items())]

    assert read("state", state="open") == 1
    assert read("state", state="forced_open") == 0
    assert read("calls_seconds_count", kind="successful") == 1
    assert read("calls_seconds_count", kind="failed") == 1
    assert read("not_permitted_calls_total", kind="not_permitted") == 1
    assert read("failure_rate") == 100
    breaker.isolate("maintenance")
    assert read("state", state="forced_open") == 1


def test_requests_have_micrometers_name():
    """The histogram of requests stands under Micrometer's name with all its buckets, in both formats."""
    page = app(naming=("micrometer", "resilience4j"))
    for chosen, parse in ((Format(), parse_text), (OPENMETRICS, parse_openmetrics)):
        families = {family.name: family.type for family in parse(page.body(chosen, "worker").decode())}
        assert families["http_server_requests_seconds"] == "histogram"


def test_our_own_names_alone_are_the_default():
    """Nothing is told twice unless it is asked for, and an unknown name is refused with what is known."""
    assert b"cache_gets_total" not in app().body(Format(), "worker").replace(b"isp_cache_gets_total", b"")
    with pytest.raises(ConfigurationError, match="micrometer, resilience4j"):
        app(naming="statsd")
