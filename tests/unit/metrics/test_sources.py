"""The features' records become families: found when in use, summed over owners, kept when an owner is gone."""

import gc
import subprocess
import sys
import time

import pytest
from sqlalchemy import create_engine, text

from isp_perf._core.histogram import CELLS
from isp_perf.breaker import CircuitBreaker, CircuitConfig, CircuitRegistry
from isp_perf.cache import CacheManager
from isp_perf.compression import CompressionStats
from isp_perf.errors import CircuitOpenError, ConfigurationError
from isp_perf.metrics import MetricRegistry, registry
from isp_perf.metrics._from_compression import derive as size_ratio
from isp_perf.metrics._from_queries import QUERIES
from isp_perf.metrics._from_redis import REDIS
from isp_perf.metrics._from_runtime import Runtime
from isp_perf.metrics._snapshot import Readings, Snapshot, Spec
from isp_perf.metrics._sources import Feature
from isp_perf.queries import count_queries, install
from isp_perf.redis import RedisPool


def family(name):
    return registry.collect("worker").get(name).by_key()


def delta(name, before, *key):
    return family(name).get(key, 0) - before.get(key, 0)


def test_there_are_at_least_45_families_before_anything_is_used():
    """A program that imports only the metrics sees every family as HELP and TYPE, and no feature is imported for it."""
    program = (
        "import sys; from isp_perf.metrics import registry; c = registry.collect().columns; "
        "print(len(c), [m for m in sys.modules if m.startswith(('isp_perf.cache', 'isp_perf.redis', 'isp_perf.breaker',"
        " 'isp_perf.compression', 'isp_perf.queries', 'prometheus_client', 'redis', 'sqlalchemy'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    count, _, rest = done.stdout.partition(" ")
    assert int(count) >= 45
    assert rest.strip() == "[]"


def test_every_own_family_has_the_prefix_and_a_sentence():
    """Families of the toolkit start with isp_ (the seed's three do not), and each says what it is."""
    seed = {"conversation_duration_seconds", "message_processing_seconds", "cache_hit_rate"}
    for name, column in registry.collect("worker").columns.items():
        if name.startswith("isp_") or name in seed:
            assert column.spec.help.endswith(".")


async def test_a_cache_tells_hits_misses_and_entries():
    """Every read is counted under the tier that answered it, and the ratio follows."""
    manager = CacheManager("sources-test")

    @manager.cached("square:{number}")
    async def square(number: int) -> int:
        return number * number

    for number in (1, 2, 1, 1):
        await square(number)
    gets = family("isp_cache_gets_total")
    assert gets["sources-test", "l1", "hit"] == 2
    assert gets["sources-test", "none", "miss"] == 2
    assert family("isp_cache_loads_total")["sources-test", "ok"] == 2
    assert family("isp_cache_entries")["sources-test",] == 2
    assert family("isp_cache_hit_ratio")["sources-test",] == 0.5
    assert family("isp_cache_saved_seconds")["sources-test",] == manager.stats().seconds_saved >= 0
    assert family("isp_cache_misses_total")["sources-test", "absent"] == 2
    assert family("isp_cache_stale_hits_total")["sources-test",] == 0
    assert family("isp_cache_weight_bytes")["sources-test",] == 0
    assert family("isp_cache_half_size_hit_ratio")["sources-test",] == 0.5
    assert family("isp_cache_double_size_hit_ratio")["sources-test",] == 0.5
    functions = family("isp_cache_function_gets_total")
    assert functions["sources-test", "square:{number}", "hit"] == 2
    assert functions["sources-test", "square:{number}", "miss"] == 2
    *cells, total = family("isp_cache_load_duration_seconds")["sources-test",]
    assert sum(cells) == 2
    assert total == round(manager.stats().load_seconds * 1e9) > 0
    assert family("isp_cache_remote_outages_total")["sources-test",] == 0
    assert family("isp_cache_function_loads_total")["sources-test", "square:{number}"] == 2
    assert family("isp_cache_function_load_seconds_total")["sources-test", "square:{number}"] > 0


async def test_what_a_cache_had_counted_stays_when_it_is_gone():
    """Metrics keep no cache alive, and a cache that is gone takes no count with it."""

    async def use():
        manager = CacheManager("short-lived")
        await manager.get_or_set("k", lambda: 1)
        await manager.get("k")
        return family("isp_cache_gets_total")

    before = await use()
    gc.collect()
    after = family("isp_cache_gets_total")
    assert {key: value for key, value in after.items() if key[0] == "short-lived"} == {
        key: value for key, value in before.items() if key[0] == "short-lived"
    }
    assert ("short-lived",) not in family("isp_cache_entries")


def test_a_breaker_tells_calls_and_state():
    """Outcomes are counters, the state is one series per state, and rejected calls are counted."""
    circuits = CircuitRegistry()
    breaker = CircuitBreaker("sources-gateway", CircuitConfig(failure_threshold=2), registry=circuits)
    breaker.call(int)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            breaker.call(lambda: 1 / 0)
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    calls = family("isp_circuit_breaker_calls_total")
    assert calls["sources-gateway", "success"] == 1
    assert calls["sources-gateway", "failure"] == 2
    assert family("isp_circuit_breaker_not_permitted_total")["sources-gateway",] == 1
    states = family("isp_circuit_breaker_state")
    assert [states["sources-gateway", state] for state in ("open", "closed", "half_open")] == [1, 0, 0]
    assert 0 < family("isp_circuit_breaker_retry_after_seconds")["sources-gateway",] <= 30
    assert 0 <= time.time() - family("isp_circuit_breaker_opened_at_seconds")["sources-gateway",] < 60
    assert 0 <= family("isp_circuit_breaker_open_seconds")["sources-gateway",] < 60
    assert family("isp_circuit_breaker_transitions_total")["sources-gateway", "closed", "open"] == 1
    assert family("isp_circuit_breaker_failure_ratio")["sources-gateway",] == 1
    breaker.reset()
    assert family("isp_circuit_breaker_transitions_total")["sources-gateway", "open", "closed"] == 1
    assert ("sources-gateway",) not in family("isp_circuit_breaker_opened_at_seconds")


def test_compression_tells_responses_and_bytes():
    """Responses per coding, bytes before and after, reasons, and the ratio from the totals."""
    before = {name: family(name) for name in ("isp_compression_responses_total", "isp_compression_in_bytes_total")}
    stats = CompressionStats()
    stats.count("br", 1000, 250)
    stats.skipped["too_small"] += 3
    assert delta("isp_compression_responses_total", before["isp_compression_responses_total"], "br") == 1
    assert delta("isp_compression_in_bytes_total", before["isp_compression_in_bytes_total"]) == 1000
    assert family("isp_compression_skipped_total")["too_small",] >= 3
    assert 0 < family("isp_compression_size_ratio")[()] <= 1


def test_without_traffic_there_is_no_ratio():
    """A ratio over nothing is hidden, not zero."""
    [column] = size_ratio(Snapshot({}))
    assert str(column.values[0]) == "nan"


def test_a_pool_without_a_server_says_nothing():
    """A disabled pool adds no series; one with a server shows its lanes before the first command."""
    disabled, enabled = RedisPool(), RedisPool("redis://localhost:1")
    readings = Readings()
    REDIS._read(disabled, readings)
    assert readings.columns() == {}
    enabled.client()
    REDIS._read(enabled, readings)
    columns = readings.columns()
    assert {key[0] for key in columns["isp_redis_commands_total"].keys} == {"fast", "bulk", "dedicated", "blocking"}
    assert columns["isp_redis_in_flight"].values == [0]


def test_queries_tell_statements_and_findings():
    """Statements, their time and each kind of finding come from the watch's record."""

    class Watch:
        class stats:
            statements, nanoseconds, n_plus_one, repeated_read, write_loop, over_budget = 7, 2_500_000_000, 1, 2, 3, 4
            batches, peers, unused_preload, slow, unexplained = 5, 60, 8, 9, 6

        sites = {("n_plus_one", "Conversa.mensagens", "/home/somebody/support/main.py", 41): 5}
        cells = [0, 7, *[0] * (CELLS - 2)]

    readings = Readings()
    QUERIES._read(Watch, readings)
    columns = readings.columns()
    assert columns["isp_queries_total"].values == [7]
    assert columns["isp_queries_seconds_total"].values == [2.5]
    assert columns["isp_queries_duration_seconds"].values == [[*Watch.cells, 2_500_000_000]]
    assert columns["isp_queries_findings_total"].grouped("kind") == {
        "n_plus_one": 1,
        "repeated_read": 2,
        "write_loop": 3,
        "unused_preload": 8,
    }
    assert columns["isp_queries_over_budget_total"].values == [4]
    assert columns["isp_queries_batches_total"].values == [5]
    assert columns["isp_queries_preloaded_total"].values == [60]
    assert columns["isp_queries_slow_total"].values == [9]
    assert columns["isp_queries_unexplained_total"].values == [6]
    sites = columns["isp_queries_site_findings_total"].by_key()
    assert sites == {("n_plus_one", "Conversa.mensagens", "support/main.py:41"): 5}


def test_every_statement_has_a_duration():
    """What an installed engine executed within a count of queries is in the histogram, each statement once."""
    engine = create_engine("sqlite://")
    handle = install(engine)
    with engine.connect() as connection, count_queries() as queries:
        for _ in range(3):
            connection.execute(text("SELECT 1"))
        readings = Readings()
        QUERIES(readings)
        [duration] = readings.columns()["isp_queries_duration_seconds"].values
        assert sum(duration[:-1]) >= queries.count == 3
        assert duration[-1] > 0
    handle.remove()
    engine.dispose()


def test_the_process_tells_memory_collections_and_version():
    """Resident memory, garbage collector pauses and the versions that run."""
    runtime = Runtime(MetricRegistry())
    try:
        runtime(Readings())
        gc.collect()
        readings = Readings()
        runtime(readings)
    finally:
        gc.callbacks.remove(runtime._collected)
    columns = readings.columns()
    assert columns["isp_process_resident_memory_bytes"].values[0] > 1_000_000
    assert columns["isp_gc_collections_total"].grouped("generation")["2"] == 1
    assert columns["isp_gc_pause_seconds_total"].grouped("generation")["2"] > 0
    assert columns["isp_build_info"].values == [1]


def test_a_feature_that_fails_leaves_the_others_in(monkeypatch):
    """An error while one owner is read costs that feature's readings and is counted."""
    own = MetricRegistry()
    spec = Spec("isp_x_total", "counter", "X.")

    def fail(owner, readings):
        raise LookupError("x")

    module = type(sys)("isp_perf.broken_feature")
    module.live = [own]
    monkeypatch.setitem(sys.modules, "isp_perf.broken_feature", module)
    own.source(Feature("isp_perf.broken_feature", "live", read=fail, specs=(spec,)), (spec,))
    own.counter("mine", "Mine.").inc()
    columns = own.collect().columns
    assert columns["mine_total"].values == [1]
    assert columns["isp_metrics_errors_total"].by_key() == {("broken_feature",): 1}


def test_names_of_the_features_are_taken():
    """A family of the toolkit cannot be defined a second time by the application."""
    with pytest.raises(ConfigurationError, match="another name"):
        registry.counter("isp_cache_gets", "Mine.")
