"""Counters, gauges and histograms count exactly, refuse nonsense, and never lose an update."""

import gc
import logging
import math
import signal
import sys
import threading
import tracemalloc

import pytest

from isp_perf.errors import ConfigurationError
from isp_perf.metrics import MetricRegistry


@pytest.fixture
def registry():
    return MetricRegistry(limit=5)


def test_a_counter_counts_with_inc_and_by_hand(registry):
    """``inc`` and ``.n += 1`` are the same count, and whole numbers stay whole."""
    jobs = registry.counter("jobs", "Jobs.")
    jobs.inc()
    jobs.inc(2)
    jobs.n += 1
    assert jobs.n == 4
    assert isinstance(jobs.n, int)


@pytest.mark.parametrize("amount", [-1, -0.5, math.nan])
def test_a_counter_never_goes_down(registry, amount):
    """A negative amount or NaN is refused and changes nothing."""
    jobs = registry.counter("jobs", "Jobs.")
    with pytest.raises(ConfigurationError, match="only goes up"):
        jobs.inc(amount)
    assert jobs.n == 0


def test_the_name_gets_total_once(registry):
    """``_total`` is appended if it is missing, and both spellings are one counter."""
    assert registry.counter("jobs", "Jobs.") is registry.counter("jobs_total", "Jobs.")
    assert list(registry.local().get("jobs_total").values) == [0]


def test_a_gauge_is_set_moved_and_asked(registry):
    """A gauge holds what was set, moves both ways, and its function answers when it is read."""
    depth = registry.gauge("depth", "Depth.")
    depth.set(5)
    depth.inc(2)
    depth.dec()
    assert depth.read() == 6
    depth.set_function(lambda: 42)
    assert depth.read() == 42
    depth.set_function(None)
    assert depth.read() == 6


def test_a_gauge_that_raises_leaves_only_its_own_series_out(registry):
    """A failing gauge function drops its series, counts an error, and the scrape goes on."""
    depths = registry.gauge("depth", "Depth.", ["queue"])
    depths.labels("a").set(1)
    depths.labels("b").set_function(lambda: 1 / 0)
    snapshot = registry.collect()
    values = snapshot.get("depth").by_key()
    assert values[("a",)] == 1
    assert math.isnan(values[("b",)])
    assert registry.local().get("isp_metrics_errors_total").by_key() == {("depth",): 1}


def test_a_histogram_keeps_whole_nanoseconds(registry):
    """Sums are exact integers of nanoseconds, and counts follow from the cells."""
    took = registry.histogram("took_seconds", "Took.")
    for _ in range(10):
        took.observe(0.1)
    assert took.total == 1_000_000_000
    assert took.count == 10
    assert took.sum == 1.0
    assert took.quantile(0.5) == pytest.approx(0.1, rel=0.0625)


@pytest.mark.parametrize(("value", "total"), [(-5.0, 0), (math.inf, (1 << 42) - 1), (math.nan, 0)])
def test_impossible_durations_are_clamped(registry, value, total):
    """Negative and endless durations count at the ends, NaN does not count; nothing else is touched."""
    took = registry.histogram("took_seconds", "Took.")
    took.observe(value)
    assert took.total == total
    assert sum(took.cells) == (0 if math.isnan(value) else 1)


def test_user_bounds_are_inclusive(registry):
    """An observation equal to a bound falls in that bound's bucket, also for bounds that floats cannot hold exactly."""
    took = registry.histogram("took_seconds", "Took.", buckets=(0.1, 0.2, 0.3))
    for value in (0.1, 0.2, 0.3, 0.30001):
        took.observe(value)
    assert took.cells == [1, 1, 1, 1]
    assert took.quantile(0.5) is None


def test_whole_numbers_for_bytes(registry):
    """A histogram of bytes keeps bytes, not nanoseconds."""
    size = registry.histogram("size_bytes", "Size.")
    size.observe(1500)
    assert size.total == 1500


@pytest.mark.parametrize("buckets", [(), (2, 1), (1, 1), (-1, 1), (float("inf"),), (1e-10, 2e-10)])
def test_bounds_must_ascend(registry, buckets):
    """Bounds that are missing, descending, equal or negative are a ConfigurationError."""
    with pytest.raises(ConfigurationError, match="buckets"):
        registry.histogram("took_seconds", "Took.", buckets=buckets)


def test_labels_by_name_and_by_place_are_one_series(registry):
    """The same values give the same series however they are passed; numbers are written as text."""
    calls = registry.counter("calls", "Calls.", ["method", "status"])
    assert calls.labels("GET", 200) is calls.labels(status="200", method="GET")


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), (("a",), {}), (("a", "b", "c"), {}), ((), {"method": "a"}), (("a",), {"status": 1})]
)
def test_wrong_labels_are_refused(registry, values, named):
    """Missing, surplus and mixed labels are a ConfigurationError that names the labels."""
    calls = registry.counter("calls", "Calls.", ["method", "status"])
    with pytest.raises(ConfigurationError, match="method"):
        calls.labels(*values, **named)


def test_a_label_explosion_ends_in_one_series(registry, caplog):
    """Past the limit every new label value shares one series; it is counted, and warned about once."""
    calls = registry.counter("calls", "Calls.", ["user"])
    with caplog.at_level(logging.WARNING, "isp_perf.metrics"):
        for user in range(100):
            calls.labels(user).n += 1
    values = registry.local().get("calls_total").by_key()
    assert len(values) == 6
    assert values[("__overflow__",)] == 95
    assert sum(values.values()) == 100
    assert registry.local().get("isp_metrics_overflow_total").by_key() == {("calls_total",): 95}
    assert len(caplog.records) == 1


def test_surrogates_in_labels_share_the_cleaned_series(registry):
    """A label value with a lone surrogate is one series, found again under its cleaned text."""
    calls = registry.counter("calls", "Calls.", ["user"])
    calls.labels("a\ud800").n += 1
    assert registry.local().get("calls_total").by_key() == {("a�",): 1}
    assert calls.labels("a\ud800") is calls.labels("a�")


def test_the_same_definition_is_the_same_metric_and_another_is_refused(registry):
    """Asking again returns the metric; the same name with other labels, kind or bounds is a ConfigurationError."""
    assert registry.counter("a", "A.", ["x"]) is registry.counter("a", "A.", ["x"])
    for define in (
        lambda: registry.counter("a", "A.", ["y"]),
        lambda: registry.gauge("a", "A."),
        lambda: registry.histogram("a", "A."),
        lambda: registry.gauge("a_total", "A."),
    ):
        with pytest.raises(ConfigurationError, match="another name"):
            define()


def test_names_that_a_histogram_writes_are_taken(registry):
    """The suffixes of a histogram cannot become metrics of their own."""
    registry.histogram("took_seconds", "Took.")
    with pytest.raises(ConfigurationError, match="another name"):
        registry.gauge("took_seconds_count", "Count.")


@pytest.mark.parametrize("build", [lambda r: r.gauge("g", "G.", merge="median"), lambda r: MetricRegistry(limit=0)])
def test_settings_are_checked(registry, build):
    """An unknown merge rule and a limit below one are ConfigurationErrors."""
    with pytest.raises(ConfigurationError):
        build(registry)


def test_exemplars_are_kept_per_cell_and_bounded(registry):
    """The last exemplar of a cell is kept; one that OpenMetrics would refuse is refused at once."""
    took = registry.histogram("took_seconds", "Took.")
    took.observe(0.1, exemplar={"trace_id": "a"})
    took.observe(0.1, exemplar={"trace_id": "b"})
    [(labels, value, _)] = took.exemplars().values()
    assert (labels, value) == ({"trace_id": "b"}, 0.1)
    with pytest.raises(ConfigurationError, match="exemplar"):
        took.observe(0.1, exemplar={"trace_id": "x" * 200})


@pytest.mark.parametrize(
    "rounds", [20_000, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_threads_lose_no_update(registry, rounds):
    """Eight threads that count as fast as they can end at the exact sum, with thread switches every microsecond."""
    by_hand = registry.counter("by_hand", "N.")
    by_call = registry.counter("by_call", "N.")
    took = registry.histogram("took_seconds", "Took.")

    def work():
        for _ in range(rounds):
            by_hand.n += 1
            by_call.inc()
            took.observe_units(100)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert by_hand.n == by_call.n == took.count == 8 * rounds
    assert took.total == 8 * rounds * 100


def test_counting_from_signals_and_collectors_cannot_deadlock(registry):
    """A collector callback and a signal handler, run in the middle of making series and scraping, make series too."""
    calls = registry.counter("calls", "Calls.", ["who"])
    handled = []

    def from_signal(number, frame):
        handled.append(number)
        calls.labels(f"signal {len(handled) % 2}").inc()

    def from_collector(phase, info):
        calls.labels(phase).inc()
        signal.raise_signal(signal.SIGUSR1)  # handled as soon as the interpreter comes back to Python code

    old, thresholds = signal.signal(signal.SIGUSR1, from_signal), gc.get_threshold()
    gc.callbacks.append(from_collector)
    gc.set_threshold(3)
    try:
        for number in range(100):
            calls.labels(number).inc()
            registry.collect()
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(from_collector)
        signal.signal(signal.SIGUSR1, old)
    assert len(handled) > 100
    assert sum(registry.local().get("calls_total").values) >= 100 + 2 * len(handled)


def test_a_counter_series_is_small():
    """A counter series costs at most 300 bytes, its label text included."""
    registry = MetricRegistry(limit=10_000)
    calls = registry.counter("calls", "Calls.", ["user"])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for user in range(5000):
            calls.labels(f"user-{user}")
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / 5000 <= 300


def test_count_and_buckets_agree_while_threads_observe(registry):
    """Whatever moment a scrape takes, the count is the sum of the very cells it shows."""
    took = registry.histogram("took_seconds", "Took.")
    stop = threading.Event()

    def work():
        while not stop.is_set():
            for units in (1, 1_000, 1_000_000):
                took.observe_units(units)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        last = 0
        for _ in range(200):
            [value] = registry.local().get("took_seconds").values
            assert sum(value[:-1]) >= last
            last = sum(value[:-1])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert took.count == sum(took.cells)
