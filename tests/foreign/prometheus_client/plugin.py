"""A pytest plugin that gives prometheus-client's tests our instruments under prometheus-client's constructors.

With ``PROMETHEUS_SUITE=ours`` counters, gauges and histograms are made by a ``MetricRegistry`` whose collector stands
in the test's own ``CollectorRegistry``, so every value is read through prometheus-client. ``PROMETHEUS_REPORT`` names
the file for the outcomes.
"""

import json
import os
import weakref
from collections.abc import Iterable
from pathlib import Path

import prometheus_client
import prometheus_client.core

from isp_perf.metrics import MetricRegistry, timed
from isp_perf.metrics.prometheus import Collector

BUCKETS = prometheus_client.Histogram.DEFAULT_BUCKETS
OWN = weakref.WeakKeyDictionary()
OUTCOMES = {}


def own_registry(theirs):
    """Return the registry of ours that speaks in theirs."""
    if theirs is None:
        return MetricRegistry()
    if theirs not in OWN:
        OWN[theirs] = MetricRegistry()
        theirs.register(Collector(OWN[theirs]))
    return OWN[theirs]


class Wrapper:
    """What the three kinds have in common: their constructor, labels by position and by name."""

    make = ""

    def __init__(
        self,
        name,
        documentation,
        labelnames=(),
        namespace="",
        subsystem="",
        unit="",
        registry=prometheus_client.REGISTRY,
        **options,
    ):
        full = "_".join(part for part in (namespace, subsystem, name) if part) if name else name
        if unit and not full.endswith(f"_{unit}"):
            full += f"_{unit}"
        self.labelnames = tuple(labelnames)
        create = getattr(own_registry(registry), self.make)
        made = create(full, documentation, self.labelnames, **options)
        self.family = made if self.labelnames else None
        self.series = None if self.labelnames else made

    def labels(self, *values, **named):
        if self.family is None:
            raise ValueError("no labels")
        child = object.__new__(type(self))
        child.family, child.labelnames = None, ()
        child.series = self.family.labels(*values, **named)
        return child

    @property
    def counted(self):
        if self.series is None:
            raise ValueError("missing label values")
        return self.series


class Counter(Wrapper):
    make = "counter"

    def inc(self, amount=1, exemplar=None):
        self.counted.inc(amount)


class Gauge(Wrapper):
    make = "gauge"

    def inc(self, amount=1):
        self.counted.inc(amount)

    def dec(self, amount=1):
        self.counted.dec(amount)

    def set(self, value):
        self.counted.set(float(value))

    def set_function(self, function):
        self.counted.set_function(function)


class Histogram(Wrapper):
    make = "histogram"

    def __init__(self, *arguments, buckets: Iterable[float] = BUCKETS, **options):
        super().__init__(*arguments, buckets=buckets, **options)

    def observe(self, amount, exemplar=None):
        self.counted.observe(amount, exemplar=exemplar)

    def time(self):
        return timed(self.counted)


if os.environ.get("PROMETHEUS_SUITE") == "ours":
    for kind in (Counter, Gauge, Histogram):
        for place in (prometheus_client, prometheus_client.core):
            setattr(place, kind.__name__, kind)


def pytest_runtest_logreport(report):
    """Keep the outcome of each test."""
    if report.when == "call" or report.outcome != "passed":
        OUTCOMES[report.nodeid.partition("::")[2]] = report.outcome


def pytest_sessionfinish():
    """Write the outcomes."""
    Path(os.environ["PROMETHEUS_REPORT"]).write_text(json.dumps(OUTCOMES))
