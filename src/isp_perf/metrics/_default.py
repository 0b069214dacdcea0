"""The constructors of an application's own metrics, in the default registry."""

from collections.abc import Sequence
from typing import overload

from isp_perf.metrics._instruments import Counter, Family, Gauge, Histogram
from isp_perf.metrics._registry import registry
from isp_perf.metrics._snapshot import Merge

__all__ = ["counter", "gauge", "histogram"]


@overload
def counter(name: str, help: str) -> Counter: ...
@overload
def counter(name: str, help: str, labels: Sequence[str]) -> Family[Counter]: ...
def counter(name: str, help: str, labels: Sequence[str] = ()) -> Counter | Family[Counter]:
    """Return the counter ``name`` of the default registry; see ``MetricRegistry.counter``.

    Args:
        name: non-empty UTF-8 text, such as ``jobs_total``; no prefix is added, ``_total`` is if it is missing.
        help: one sentence for people.
        labels: label names; without labels the answer is the one series itself.

    Raises:
        ConfigurationError: name or labels are invalid, or another metric has the name.
    """
    return registry.counter(name, help, labels)


@overload
def gauge(name: str, help: str, *, merge: Merge = "sum") -> Gauge: ...
@overload
def gauge(name: str, help: str, labels: Sequence[str], *, merge: Merge = "sum") -> Family[Gauge]: ...
def gauge(name: str, help: str, labels: Sequence[str] = (), *, merge: Merge = "sum") -> Gauge | Family[Gauge]:
    """Return the gauge ``name`` of the default registry; see ``MetricRegistry.gauge``.

    Args:
        name: as for ``counter``.
        help: as for ``counter``.
        labels: as for ``counter``.
        merge: how the values of several workers become one: sum, min, max, mean or latest. Dead workers drop out.

    Raises:
        ConfigurationError: as for ``counter``, or ``merge`` is none of the five.
    """
    return registry.gauge(name, help, labels, merge=merge)


@overload
def histogram(
    name: str, help: str, *, buckets: Sequence[float] | None = None, whole: bool | None = None
) -> Histogram: ...
@overload
def histogram(
    name: str,
    help: str,
    labels: Sequence[str],
    *,
    buckets: Sequence[float] | None = None,
    whole: bool | None = None,
) -> Family[Histogram]: ...
def histogram(
    name: str,
    help: str,
    labels: Sequence[str] = (),
    *,
    buckets: Sequence[float] | None = None,
    whole: bool | None = None,
) -> Histogram | Family[Histogram]:
    """Return the histogram ``name`` of the default registry; see ``MetricRegistry.histogram``.

    Args:
        name: as for ``counter``.
        help: as for ``counter``.
        labels: as for ``counter``; ``le`` is reserved.
        buckets: inclusive upper bounds in ascending order, ``+Inf`` is implied; ``None`` for log-linear cells.
        whole: values are whole numbers (bytes, rows), not seconds; ``None``: whole if the name ends in ``_bytes``.

    Raises:
        ConfigurationError: as for ``counter``, or the buckets do not ascend.
    """
    return registry.histogram(name, help, labels, buckets=buckets, whole=whole)
