"""The same figures for OpenTelemetry. The only module that imports ``opentelemetry`` (extra ``otel``).

Counters and gauges become observable instruments: the SDK asks when it exports, so counting costs what it did. The
API has no observable histogram, and the Python SDK no way to hand in finished ones, so histograms have two ways: a
counter each for count and sum (``observe``), or complete, with their buckets, beside whatever an exporter exports
(``HistogramExporter``). Figures are those of this process: OpenTelemetry adds up workers by their resource.

Names follow the semantic conventions where one exists for the very same thing, and are ``isp.<area>.<what>`` else;
there is no convention for caches and circuit breakers.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from isp_perf.metrics._buckets import edges
from isp_perf.metrics._registry import MetricRegistry, registry
from isp_perf.metrics._snapshot import Column, Key, Snapshot, Spec

__all__ = ["HistogramExporter", "Observed", "observe"]

_NAME: Final = "isp_perf"
_CONVENTIONS: Final = {
    "isp_http_request_duration_seconds": "http.server.request.duration",
    "isp_http_requests_in_flight": "http.server.active_requests",
    "isp_gc_collections_total": "cpython.gc.collections",
    "isp_process_resident_memory_bytes": "process.memory.usage",
}
_ATTRIBUTES: Final = {
    "isp_http_": {"method": "http.request.method", "route": "http.route", "status": "http.response.status_code"},
    "isp_gc_": {"generation": "cpython.gc.generation"},
}
_NUMBERS: Final = {"http.response.status_code", "cpython.gc.generation"}
_UNITS: Final = {"seconds": "s", "bytes": "By", "ratio": "1"}
_AREAS: Final = ("circuit_breaker", "cache", "compression", "gc", "http", "loop", "metrics", "queries", "redis", "self")


class Observed:
    """The observable instruments of one registry on one meter.

    Args:
        source: the registry.
        meter: where the instruments are made.
        histograms: whether histograms are counters of count and sum here; ``False`` beside a ``HistogramExporter``.
    """

    def __init__(self, source: MetricRegistry, meter: Meter, *, histograms: bool = True) -> None:
        self._meter = meter
        self._histograms = histograms
        self._readings = _Readings(source)
        self._made: set[str] = set()
        self._source = source
        self.update()

    def update(self) -> None:
        """Make instruments for metrics that were defined since; call it when all of a program's metrics exist."""
        for name, column in self._source.collect("worker").columns.items():
            if name not in self._made:
                self._made.add(name)
                self._make(column.spec)

    def _make(self, spec: Spec) -> None:
        name, unit = _named(spec)
        if spec.kind == "counter":
            self._meter.create_observable_counter(name, [self._asking(spec, _plain)], unit, spec.help)
        elif spec.kind == "gauge":
            additive = spec.merge == "sum"
            create = self._meter.create_observable_up_down_counter if additive else self._meter.create_observable_gauge
            create(name, [self._asking(spec, _plain)], unit, spec.help)
        elif self._histograms:
            counted = [self._asking(spec, _counted, part="count")]
            self._meter.create_observable_counter(f"{name}.count", counted, "1", spec.help)
            summed = [self._asking(spec, _summed, part="sum")]
            self._meter.create_observable_counter(f"{name}.sum", summed, unit, spec.help)

    def _asking(
        self, spec: Spec, read: Callable[[Spec, Any], float], part: str = ""
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        attributes = _Attributes(spec)

        def ask(_: CallbackOptions) -> Iterable[Observation]:
            column = self._readings.column(spec.name, part)
            for key, value in zip(column.keys, column.values, strict=True):
                number = read(spec, value)
                if not math.isnan(number):
                    yield Observation(number, attributes.of(key))

        return ask


class _Readings:
    """One snapshot for all instruments of one export: a new one is read when an instrument asks a second time."""

    def __init__(self, source: MetricRegistry) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._snapshot = Snapshot({})
        self._asked: set[tuple[str, str]] | None = None

    def column(self, name: str, part: str) -> Column:
        """Return a family for one of its instruments."""
        with self._lock:
            if self._asked is None or (name, part) in self._asked:
                self._snapshot = self._source.collect("worker")
                self._asked = set()
            self._asked.add((name, part))
            return self._snapshot.get(name)


class _Attributes:
    """Turns the label values of a family into attributes; each key is turned once."""

    def __init__(self, spec: Spec) -> None:
        area = next((area for area in _ATTRIBUTES if spec.name.startswith(area)), "")
        names: Mapping[str, str] = _ATTRIBUTES.get(area, {})
        self._names = tuple(names.get(label, label) for label in spec.labels)
        self._known: dict[Key, dict[str, str | int]] = {}

    def of(self, key: Key) -> dict[str, str | int]:
        """Return the attributes of a series."""
        known = self._known.get(key)
        if known is None:
            pairs = zip(self._names, key, strict=True)
            known = {name: int(text) if name in _NUMBERS and text.isdecimal() else text for name, text in pairs}
            self._known[key] = known
        return known


class Exporter(Protocol):
    """A ``MetricExporter``, as far as it is called."""

    def export(self, metrics_data: MetricsData, timeout_millis: float = ..., **kwargs: Any) -> MetricExportResult:
        """Send metrics."""
        ...

    def force_flush(self, timeout_millis: float = ...) -> bool:
        """Send what is held."""
        ...

    def shutdown(self, timeout_millis: float = ..., **kwargs: Any) -> None:
        """End."""
        ...


class HistogramExporter(MetricExporter):
    """Exports what another exporter would, and beside it the registry's histograms with all their buckets.

    For a ``PeriodicExportingMetricReader``: ``HistogramExporter(OTLPMetricExporter())``, together with ``observe``: the
    SDK exports only when it has metrics of its own. The histograms are cumulative, with the explicit bounds the text
    format shows.

    Args:
        inner: sends everything.
        source: the registry.
    """

    def __init__(self, inner: Exporter, *, source: MetricRegistry = registry) -> None:
        super().__init__(
            preferred_temporality=getattr(inner, "_preferred_temporality", None),
            preferred_aggregation=getattr(inner, "_preferred_aggregation", None),
        )
        self._inner = inner
        self._source = source
        self._began = time.time_ns()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Send the SDK's metrics and the registry's histograms.

        Args:
            metrics_data: what the SDK collected.
            timeout_millis: handed on.
            **kwargs: handed on.
        """
        given = metrics_data.resource_metrics
        resource = given[0].resource if given else Resource.get_empty()
        ours = ResourceMetrics(resource, [ScopeMetrics(InstrumentationScope(_NAME), self._metrics(), "")], "")
        return self._inner.export(MetricsData([*given, ours]), timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Have the other exporter send what it holds.

        Args:
            timeout_millis: handed on.
        """
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Shut the other exporter down.

        Args:
            timeout_millis: handed on.
            **kwargs: handed on.
        """
        self._inner.shutdown(timeout_millis, **kwargs)

    def _metrics(self) -> list[Metric]:
        snapshot = self._source.collect("worker")
        columns = [column for column in snapshot.columns.values() if column.spec.kind == "histogram" and column.keys]
        return [self._metric(column, snapshot.time_ns) for column in columns]

    def _metric(self, column: Column, now: int) -> Metric:
        spec, attributes = column.spec, _Attributes(column.spec)
        points = [
            self._point(spec, value, attributes.of(key), now=now)
            for key, value in zip(column.keys, column.values, strict=True)
        ]
        name, unit = _named(spec)
        return Metric(name, spec.help, unit, HistogramData(points, AggregationTemporality.CUMULATIVE))

    def _point(
        self, spec: Spec, value: list[int], attributes: Mapping[str, str | int], *, now: int
    ) -> HistogramDataPoint:
        cells, shown = value[:-1], edges(spec)
        starts = [0, *(below for below, _ in shown)]
        ends = [*starts[1:], len(cells)]
        counts = [sum(cells[start:end]) for start, end in zip(starts, ends, strict=True)]
        return HistogramDataPoint(
            attributes=dict(attributes),
            start_time_unix_nano=self._began,
            time_unix_nano=now,
            count=sum(counts),
            sum=value[-1] / spec.scale,
            bucket_counts=counts,
            explicit_bounds=[bound for _, bound in shown],
            min=math.nan,
            max=math.nan,
        )


def observe(source: MetricRegistry = registry, meter: Meter | None = None, *, histograms: bool = True) -> Observed:
    """Make observable instruments for everything in a registry; keep what is returned to call ``update`` on.

    Args:
        source: the registry; default: that of the toolkit.
        meter: where the instruments are made; ``None``: the global provider's meter named ``isp_perf``.
        histograms: whether histograms are counters of count and sum; ``False`` beside a ``HistogramExporter``.
    """
    return Observed(source, get_meter(_NAME) if meter is None else meter, histograms=histograms)


def _plain(_: Spec, value: Any) -> float:
    number: float = value
    return number


def _counted(_: Spec, value: Any) -> float:
    cells: list[int] = value[:-1]
    return sum(cells)


def _summed(spec: Spec, value: Any) -> float:
    total: int = value[-1]
    return total / spec.scale


def _named(spec: Spec) -> tuple[str, str]:
    """Return the name and the unit of a family in OpenTelemetry's ways: dots, and the unit not in the name."""
    stem, _, last = spec.base.rpartition("_")
    unit = _UNITS.get(last, "1")
    known = _CONVENTIONS.get(spec.name)
    if known is not None:
        return known, unit
    shown = stem if stem and last in {"seconds", "bytes"} else spec.base
    for area in _AREAS:
        start = f"isp_{area}_"
        if shown.startswith(start):
            return f"isp.{area}.{shown.removeprefix(start)}", unit
    return (f"isp.{shown.removeprefix('isp_')}" if shown.startswith("isp_") else shown), unit
