"""The totals as a normal prometheus-client ``Collector``. The only module that imports ``prometheus_client``."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector as Readable
from prometheus_client.samples import Exemplar as PrometheusExemplar

from isp_perf.metrics._buckets import Bucket, shown
from isp_perf.metrics._naming import Naming, aliased, checked
from isp_perf.metrics._registry import MetricRegistry
from isp_perf.metrics._snapshot import Column, Exemplar, Key, Snapshot
from isp_perf.metrics._text import number

__all__ = ["Collector", "collector", "exposition"]


class Target(Protocol):
    """Where a collector can be registered: prometheus-client's ``CollectorRegistry``."""

    def register(self, collector: "Collector", /) -> None:
        """Take in a collector."""
        ...


class Collector:
    """Gives every metric of a registry to prometheus-client, totals over all workers included.

    It merges the workers itself, so it also works where prometheus-client's own multi-process mode, which knows no
    custom collectors, is not used or cannot be.

    Args:
        source: the registry to read.
        naming: whose names to show as well; see ``MetricsApp``.
    """

    def __init__(self, source: MetricRegistry, naming: Naming | Iterable[Naming] = ()) -> None:
        self._source = source
        self._naming = checked(naming)

    def collect(self) -> Iterator[Metric]:
        """Yield the families with their samples."""
        snapshot = aliased(self._source.collect(), self._naming)
        for column in snapshot.columns.values():
            yield _metric(column, snapshot)

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples, so that registering reads nothing."""
        columns = aliased(self._source.collect("worker"), self._naming).columns.values()
        return [_metric(Column(column.spec, [], []), Snapshot({})) for column in columns]


def collector(
    source: MetricRegistry, target: Target | None = None, *, naming: Naming | Iterable[Naming] = ()
) -> Collector:
    """Return a collector for ``source``, registered with ``target`` if one is given.

    Args:
        source: the registry to read.
        target: the prometheus-client registry it is registered with.
        naming: whose names to show as well; see ``MetricsApp``.

    Raises:
        ConfigurationError: ``naming`` is not known.
    """
    made = Collector(source, naming)
    if target is not None:
        target.register(made)
    return made


def exposition(target: Readable, *, openmetrics: bool) -> bytes:
    """Return what another registry has to say, to be put before the end of an answer of ours.

    Args:
        target: the application's own registry.
        openmetrics: OpenMetrics without its end mark, not the text format.
    """
    encode, _ = choose_encoder("application/openmetrics-text;version=1.0.0" if openmetrics else "text/plain")
    return encode(target).removesuffix(b"# EOF\n")


def _metric(column: Column, snapshot: Snapshot) -> Metric:
    spec = column.spec
    if spec.kind == "counter":
        counter = CounterMetricFamily(spec.base, spec.help, labels=spec.labels)
        for key, value in zip(column.keys, column.values, strict=True):
            counter.add_metric(key, value)
        return counter
    if spec.kind == "gauge":
        gauge = GaugeMetricFamily(spec.name, spec.help, labels=spec.labels)
        for key, value in zip(column.keys, column.values, strict=True):
            if not math.isnan(value):
                gauge.add_metric(key, value)
        return gauge
    return _histogram(column, snapshot.exemplars.get(spec.name, {}))


def _histogram(column: Column, exemplars: Mapping[Key, Mapping[int, Exemplar]]) -> Metric:
    spec = column.spec
    family = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
    for key, value in zip(column.keys, column.values, strict=True):
        buckets = [_bucket(each) for each in shown(spec, value[:-1], exemplars.get(key, {}))]
        family.add_metric(key, buckets, value[-1] / spec.scale)
    return family


def _bucket(bucket: Bucket) -> tuple[str, int] | tuple[str, int, PrometheusExemplar]:
    if bucket.example is None:
        return number(bucket.bound), bucket.total
    labels, value, moment = bucket.example
    return number(bucket.bound), bucket.total, PrometheusExemplar(dict(labels), value, moment)
