"""The figures reach the real OpenTelemetry SDK, under its names and with its units."""

import asyncio

import pytest

from isp_perf.metrics import MetricRegistry, MetricsMiddleware, registry

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)

from isp_perf.metrics.opentelemetry import HistogramExporter, observe


def found(data):
    """Return the metrics by name."""
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@pytest.fixture
def exported():
    """A function that observes a registry and returns what the SDK collects from it."""
    providers = []

    def collect(source, **options):
        reader = InMemoryMetricReader()
        providers.append(MeterProvider([reader]))
        observed = observe(source, providers[-1].get_meter("tests"), **options)
        return observed, lambda: found(reader.get_metrics_data())

    yield collect
    for provider in providers:
        provider.shutdown()


def values(metric):
    return {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}


def test_counters_and_gauges_are_observed_with_their_present_values(exported):
    """Each export reads anew; sums are monotonic, a gauge of NaN is left out, and units stand apart from names."""
    own = MetricRegistry()
    jobs = own.counter("isp_cache_test_seconds_total", "Jobs.", ["queue"])
    depth = own.gauge("depth", "Depth.")
    hottest = own.gauge("hottest", "Hottest.", merge="max")
    _, export = exported(own)
    hottest.set(float("nan"))
    depth.set(2)
    for wanted in (1, 2):
        jobs.labels("a").n += 1
        got = export()
        assert values(got["isp.cache.test"]) == {(("queue", "a"),): wanted}
    assert got["isp.cache.test"].unit == "s"
    assert got["isp.cache.test"].data.is_monotonic
    assert values(got["depth"]) == {(): 2}
    assert not got["depth"].data.is_monotonic
    assert "hottest" not in got


def test_metrics_defined_later_are_added_by_update(exported):
    """``update`` makes instruments for what is new and none twice."""
    own = MetricRegistry()
    own.gauge("early", "Early.")
    observed, export = exported(own)
    own.counter("late", "Late.").n += 1
    assert "late" not in export()
    observed.update()
    observed.update()
    assert values(export()["late"]) == {(): 1}


def test_requests_have_the_names_of_the_semantic_conventions(exported):
    """Attributes of requests are those of the conventions, the status a number; count and sum make the histogram."""
    own = MetricRegistry()

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def nothing(message=None):
        pass

    asyncio.run(MetricsMiddleware(application, target=own)({"type": "http", "method": "GET"}, nothing, nothing))
    _, export = exported(own)
    got = export()
    route = (("http.request.method", "GET"), ("http.route", "__unmatched__"))
    status = ("http.response.status_code", 204)
    assert values(got["isp.http.requests"]) == {(route[0], status, route[1]): 1}
    assert values(got["http.server.request.duration.count"]) == {route: 1}
    assert values(got["http.server.request.duration.sum"])[route] > 0
    assert values(got["http.server.active_requests"]) == {(): 0}


def test_every_family_of_the_toolkit_is_an_instrument(exported):
    """The default registry, all families included, makes instruments without a complaint of the SDK."""
    _, export = exported(registry)
    got = export()
    assert {"isp.build_info", "process.memory.usage", "cpython.gc.collections"} <= set(got)


class Kept(MetricExporter):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.data = []
        self.ended = 0

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        self.data.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        self.ended += 1


def test_an_exporter_can_carry_complete_histograms():
    """Beside the instruments go histograms with bounds and buckets whose sum is the count."""
    own = MetricRegistry()
    took = own.histogram("took_seconds", "Took.", buckets=(0.1, 1.0))
    for seconds in (0.05, 0.5, 0.5, 5.0):
        took.observe(seconds)
    own.gauge("present", "The SDK exports nothing if it has nothing itself.")
    kept = Kept()
    reader = PeriodicExportingMetricReader(HistogramExporter(kept, source=own), export_interval_millis=3_600_000)
    provider = MeterProvider([reader])
    observe(own, provider.get_meter("tests"), histograms=False)
    provider.force_flush()
    provider.shutdown()
    got = found(kept.data[0])
    (point,) = got["took"].data.data_points
    assert (point.count, list(point.bucket_counts), list(point.explicit_bounds)) == (4, [1, 2, 1], [0.1, 1.0])
    assert point.sum == 6.05
    assert got["took"].unit == "s"
    assert "took.count" not in got
    assert kept.ended == 1
