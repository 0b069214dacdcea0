"""The constructors of an application's own metrics, in the default registry."""

from typing import Final

from isp_perf.metrics._registry import registry

__all__ = ["counter", "gauge", "histogram"]

counter: Final = registry.counter
gauge: Final = registry.gauge
histogram: Final = registry.histogram
