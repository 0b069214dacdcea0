"""The registry: what exists, what may be added, and the reading of everything at once."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

from isp_perf.errors import ConfigurationError
from isp_perf.metrics._instruments import Counter, Family, Gauge, Histogram, LeftOut
from isp_perf.metrics._names import valid_labels, valid_name
from isp_perf.metrics._snapshot import Column, Merge, Readings, Snapshot, Spec

__all__ = ["ERRORS", "OVERFLOWED", "Exchange", "MetricRegistry", "Scope", "registry"]

Scope: TypeAlias = Literal["all", "worker"]
Source: TypeAlias = Callable[[Readings], None]
Derivation: TypeAlias = Callable[[Snapshot], Iterable[Column]]

OVERFLOWED = Spec(
    "isp_metrics_overflow_total", "counter", "Look-ups of a series that a full metric had no room for.", ("metric",)
)
ERRORS = Spec("isp_metrics_errors_total", "counter", "Readings that failed and were left out of a scrape.", ("metric",))
_SUFFIXES = {"counter": ("_total", "_created"), "histogram": ("_bucket", "_count", "_sum", "_created"), "gauge": ()}
_INTERNAL_LIMIT = 1_000_000
_Series = TypeVar("_Series", bound=Counter | Gauge | Histogram)


class Exchange(Protocol):
    """Joins the snapshots of sibling processes; see ``_workers``."""

    def gather(self, local: Callable[[], Snapshot]) -> Snapshot:
        """Return the totals over all workers, this one read through ``local``."""
        ...


class MetricRegistry:
    """Holds metrics and reads them on request; nothing is computed until somebody asks.

    Args:
        limit: series a metric with labels may have (>= 1); further label values share one ``__overflow__`` series.
    """

    def __init__(self, *, limit: int = 1000) -> None:
        if limit < 1:
            raise ConfigurationError("limit", limit, "a metric needs at least one series", "pass a number >= 1")
        self.limit = limit
        self.exchange: Exchange | None = None
        self._lock = threading.RLock()
        self._names: dict[str, str] = {}
        self._families: dict[str, Family[Any]] = {}
        self._sources: list[Source] = []
        self._derivations: list[Derivation] = []
        self._overflows = self._own(OVERFLOWED)
        self._errors = self._own(ERRORS)

    @overload
    def counter(self, name: str, help: str) -> Counter: ...
    @overload
    def counter(self, name: str, help: str, labels: Sequence[str]) -> Family[Counter]: ...
    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter | Family[Counter]:
        """Return the counter ``name``; ``_total`` is appended if it is missing.

        Asking again with the same definition returns the same counter.

        Args:
            name: non-empty UTF-8 text, such as ``jobs_total``; no prefix is added.
            help: one sentence for people.
            labels: label names; without labels the answer is the one series itself.

        Raises:
            ConfigurationError: name or labels are invalid, or another metric has the name.
        """
        full = valid_name(name).removesuffix("_total") + "_total"
        return self._define(Spec(full, "counter", help, valid_labels(labels)), Counter)

    @overload
    def gauge(self, name: str, help: str, *, merge: Merge = "sum") -> Gauge: ...
    @overload
    def gauge(self, name: str, help: str, labels: Sequence[str], *, merge: Merge = "sum") -> Family[Gauge]: ...
    def gauge(self, name: str, help: str, labels: Sequence[str] = (), *, merge: Merge = "sum") -> Gauge | Family[Gauge]:
        """Return the gauge ``name``; see ``counter``.

        Args:
            name: as for ``counter``.
            help: as for ``counter``.
            labels: as for ``counter``.
            merge: how the values of several workers become one: sum, min, max, mean or latest. Dead workers drop out.

        Raises:
            ConfigurationError: as for ``counter``, or ``merge`` is none of the five.
        """
        if merge not in {"sum", "min", "max", "mean", "latest"}:
            raise ConfigurationError("merge", merge, "one of sum, min, max, mean, latest", 'write merge="sum"')
        return self._define(Spec(valid_name(name), "gauge", help, valid_labels(labels), merge), Gauge)

    @overload
    def histogram(
        self, name: str, help: str, *, buckets: Sequence[float] | None = None, whole: bool | None = None
    ) -> Histogram: ...
    @overload
    def histogram(
        self,
        name: str,
        help: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float] | None = None,
        whole: bool | None = None,
    ) -> Family[Histogram]: ...
    def histogram(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] | None = None,
        whole: bool | None = None,
    ) -> Histogram | Family[Histogram]:
        """Return the histogram ``name``; see ``counter``.

        Args:
            name: as for ``counter``.
            help: as for ``counter``.
            labels: as for ``counter``; ``le`` is reserved.
            buckets: inclusive upper bounds in ascending order, ``+Inf`` is implied; ``None`` for log-linear cells
                (320 cells, at most 6.25 % error), shown as one bucket per octave.
            whole: values are whole numbers (bytes, rows) up to 4e12, not seconds up to 73 minutes kept in whole
                nanoseconds; ``None``: whole if the name ends in ``_bytes``.

        Raises:
            ConfigurationError: as for ``counter``, or the buckets do not ascend.
        """
        exact = valid_name(name).endswith("_bytes") if whole is None else whole
        checked = valid_labels(labels, reserved=("le",))
        spec = Spec(valid_name(name), "histogram", help, checked, whole=exact)
        if buckets is not None:
            spec = replace(spec, bounds=_bounds(buckets, spec.scale))
        return self._define(spec, lambda: Histogram(spec))

    def source(self, read: Source) -> None:
        """Add a function that reads records of others into every snapshot; one that raises is counted and left out."""
        with self._lock:
            self._sources.append(read)

    def derive(self, derive: Derivation) -> None:
        """Add a function that computes further columns from the totals, after workers were merged."""
        with self._lock:
            self._derivations.append(derive)

    def local(self) -> Snapshot:
        """Return what this process has counted."""
        readings = Readings()
        for read in list(self._sources):
            with LeftOut(getattr(read, "__name__", "source"), self._failed):
                read(readings)
        columns = readings.columns()
        with self._lock:
            families = list(self._families.items())
        exemplars: dict[str, Any] = {}
        for name, family in families:
            columns[name] = family.read(self._failed)
            if family.spec.kind == "histogram" and (found := family.exemplars()):
                exemplars[name] = found
        return Snapshot(columns, time.time_ns(), exemplars)

    def collect(self, scope: Scope = "all") -> Snapshot:
        """Return the totals over all workers, or of this one (``scope="worker"``), with everything derived.

        May wait up to 50 ms for siblings: call it in a thread, not on an event loop.
        """
        exchange = self.exchange
        snapshot = self.local() if scope == "worker" or exchange is None else exchange.gather(self.local)
        columns = dict(snapshot.columns)
        merged = Snapshot(columns, snapshot.time_ns, snapshot.exemplars)
        for derive in list(self._derivations):
            with LeftOut(getattr(derive, "__name__", "derivation"), self._failed):
                columns.update({column.spec.name: column for column in derive(merged)})
        merged.columns = dict(sorted(columns.items()))
        return merged

    def _define(self, spec: Spec, create: Callable[[], _Series]) -> _Series | Family[_Series]:
        with self._lock:
            family: Family[_Series] | None = self._families.get(spec.name)
            if family is None or family.spec != spec:
                family = self._new_locked(spec, create)
        return family if spec.labels else family.labels()

    def _new_locked(self, spec: Spec, create: Callable[[], _Series]) -> Family[Any]:
        taken = [spec.base, spec.name, *(spec.base + suffix for suffix in _SUFFIXES[spec.kind])]
        for name in taken:
            if name in self._names:
                raise ConfigurationError(
                    "name",
                    spec.name,
                    f"{self._names[name]} has {name} already, defined otherwise",
                    "choose another name",
                )
        self._names.update(dict.fromkeys(taken, spec.name))
        family = Family(spec, create, limit=self.limit, overflowed=self._overflowed)
        self._families[spec.name] = family
        return family

    def _own(self, spec: Spec) -> Family[Counter]:
        family = Family(spec, Counter, limit=_INTERNAL_LIMIT, overflowed=self._overflowed)
        self._families[spec.name] = family
        self._names[spec.base] = self._names[spec.name] = spec.name
        return family

    def _overflowed(self, name: str) -> None:
        self._overflows.labels(name).n += 1

    def _failed(self, name: str) -> None:
        self._errors.labels(name).n += 1


def _bounds(buckets: Sequence[float], scale: int) -> tuple[int, ...]:
    """Return user-given bounds in whole units, without the implied last one."""
    given = [bound for bound in buckets if bound != float("inf")]
    bounds = tuple(round(bound * scale) for bound in given)
    if not bounds or bounds[0] < 0 or any(low >= high for low, high in pairwise(bounds)):
        raise ConfigurationError(
            "buckets", tuple(buckets), "bounds are >= 0 and ascend by at least one unit", "sort them, drop repeats"
        )
    return bounds


registry = MetricRegistry()
