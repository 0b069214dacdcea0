"""Metrics whose owners count with plain numbers and which are read only when somebody asks.

``counter``, ``gauge`` and ``histogram`` define metrics of the default registry, ``timed`` measures into a histogram,
``app()`` is the ASGI application behind ``/metrics``, ``MetricsMiddleware`` counts requests per route, and
``collector()`` gives everything to prometheus-client. Nothing here imports a third party before it is asked to.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from isp_perf.metrics import _from_cache, _from_compression
from isp_perf.metrics._app import MetricsApp, app
from isp_perf.metrics._business import CACHE_HIT_RATE, CONVERSATION_DURATION, MESSAGE_PROCESSING_TIME
from isp_perf.metrics._default import counter, gauge, histogram
from isp_perf.metrics._from_audit import AUDIT
from isp_perf.metrics._from_breaker import BREAKER
from isp_perf.metrics._from_cache import CACHE
from isp_perf.metrics._from_compression import COMPRESSION
from isp_perf.metrics._from_queries import QUERIES
from isp_perf.metrics._from_redis import REDIS
from isp_perf.metrics._from_runtime import Runtime
from isp_perf.metrics._http import HttpMetrics, MetricsMiddleware
from isp_perf.metrics._instruments import Counter, Family, Gauge, Histogram
from isp_perf.metrics._naming import Naming
from isp_perf.metrics._registry import MetricRegistry, registry
from isp_perf.metrics._timed import Timer, timed

if TYPE_CHECKING:
    from isp_perf.metrics.prometheus import Collector, Target

__all__ = [
    "CACHE_HIT_RATE",
    "CONVERSATION_DURATION",
    "MESSAGE_PROCESSING_TIME",
    "Counter",
    "Family",
    "Gauge",
    "Histogram",
    "MetricRegistry",
    "MetricsApp",
    "MetricsMiddleware",
    "Naming",
    "Timer",
    "app",
    "collector",
    "counter",
    "gauge",
    "histogram",
    "registry",
    "timed",
]

for _source in (CACHE, AUDIT, REDIS, BREAKER, COMPRESSION, QUERIES, Runtime(registry)):
    registry.source(_source, _source.specs)
registry.derive(_from_cache.derive, _from_cache.DERIVED)
registry.derive(_from_compression.derive, _from_compression.DERIVED)
HttpMetrics(registry)  # its families stand in every scrape, also before the first request


def collector(
    target: "Target | None" = None,
    *,
    source: MetricRegistry = registry,
    naming: Naming | Iterable[Naming] = (),
) -> "Collector":
    """Return everything as a normal prometheus-client ``Collector``.

    Args:
        target: the prometheus-client registry it is registered with; ``None`` to register it yourself.
        source: the registry to read.
        naming: whose names to show as well, ``"micrometer"`` and ``"resilience4j"``; see ``MetricsApp``.

    Raises:
        ConfigurationError: ``naming`` is not known.
    """
    from isp_perf.metrics.prometheus import collector as make

    return make(source, target, naming=naming)
